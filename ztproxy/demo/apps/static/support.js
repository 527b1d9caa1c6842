// Live updates: the desk tells every open page about new tickets and comments.
const live = document.getElementById("live");
const tickets = document.getElementById("tickets");
const comments = document.getElementById("comments");

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function ticketRow(ticket) {
  const row = element("tr", "", "fresh");
  row.dataset.ticket = ticket.number;
  const link = element("a", ticket.subject);
  link.href = `/tickets/${ticket.number}`;
  const tag = (word) => element("span", word, `tag ${word}`);
  for (const [content, className] of [
    [ticket.number, ""], [link, ""], [ticket.customer, "optional"], [tag(ticket.state), ""],
    [tag(ticket.priority), "optional"], [ticket.comments, "optional comments"],
  ]) {
    const cell = element("td", "", className);
    cell.append(content);
    row.append(cell);
  }
  return row;
}

function onTicket(ticket) {
  if (comments && Number(comments.dataset.ticket) === ticket.number) {
    const state = document.getElementById("state");
    state.textContent = ticket.state;
    state.className = `tag ${ticket.state}`;
  }
  if (!tickets) return;
  const row = tickets.querySelector(`[data-ticket="${ticket.number}"]`);
  if (row) row.replaceWith(ticketRow(ticket));
  else tickets.prepend(ticketRow(ticket));
}

function onComment(comment) {
  if (!comments || Number(comments.dataset.ticket) !== comment.ticket) return;
  comments.querySelector(".none")?.remove();
  const shown = element("div", "", "comment fresh");
  shown.append(element("strong", comment.author), " ", element("span", comment.at, "quiet"), element("p", comment.text));
  comments.append(shown);
}

function status(state, text) {
  live.dataset.state = state;
  live.textContent = text;
}

let pause = 500;

function connect() {
  const socket = new WebSocket(`wss://${location.host}/live`);
  socket.onmessage = (message) => {
    const event = JSON.parse(message.data);
    if (event.kind === "hello") { pause = 500; status("open", `live · ${event.here} here`); }
    if (event.kind === "presence") status("open", `live · ${event.here} here`);
    if (event.kind === "ticket") onTicket(event.ticket);
    if (event.kind === "comment") onComment(event.comment);
  };
  socket.onclose = () => {
    status("closed", "not connected");
    setTimeout(connect, pause);
    pause = Math.min(pause * 2, 15000);
  };
}

connect();
