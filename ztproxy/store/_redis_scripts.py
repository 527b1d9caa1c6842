"""What Redis does in one step, in Lua: record, order, expiry and change are written together or not at all.

Run by `store.redis`. All keys carry one hash tag and so live in one slot of a cluster.
"""

from typing import Final

# KEYS: 1 head  2 changes (stream)  3 expiries (zset)  4 records (hash)  5 members in key order (zset)
# A member is "KIND\0KEY"; a record is "VERSION EXPIRES_AT VALUE".
_COMMON: Final = """
local function live(member, now)
  local packed = redis.call('HGET', KEYS[4], member)
  if not packed then return 0 end
  local version, expires = string.match(packed, '^(%d+) (%d+) ')
  expires = tonumber(expires)
  if expires > 0 and expires <= now then return 0 end
  return tonumber(version)
end
local function publish(member, keep, stamp, value)
  local version = redis.call('INCR', KEYS[1])
  local id = string.format('%d-', version) .. stamp
  if value then
    redis.call('XADD', KEYS[2], 'MAXLEN', keep, id, 'm', member, 'v', value)
  else
    redis.call('XADD', KEYS[2], 'MAXLEN', keep, id, 'm', member)
  end
  return version
end
local function remove(member, keep, stamp)
  redis.call('HDEL', KEYS[4], member)
  redis.call('ZREM', KEYS[5], member)
  redis.call('ZREM', KEYS[3], member)
  publish(member, keep, stamp, nil)
end
"""

# ARGV: member, value, if_version or "", expires_at, now, keep, stamp
PUT: Final = (
    _COMMON
    + """
local found = live(ARGV[1], tonumber(ARGV[5]))
if ARGV[3] ~= '' and tonumber(ARGV[3]) ~= found then return {-1, found} end
local version = publish(ARGV[1], ARGV[6], ARGV[7], ARGV[2])
redis.call('HSET', KEYS[4], ARGV[1], string.format('%d ', version) .. ARGV[4] .. ' ' .. ARGV[2])
redis.call('ZADD', KEYS[5], 0, ARGV[1])
if ARGV[4] == '0' then redis.call('ZREM', KEYS[3], ARGV[1])
else redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1]) end
return {0, version}
"""
)

# ARGV: member, if_version or "", now, keep, stamp
DELETE: Final = (
    _COMMON
    + """
local found = live(ARGV[1], tonumber(ARGV[3]))
if ARGV[2] ~= '' and tonumber(ARGV[2]) ~= found then return {-1, found} end
if found == 0 then return {0, 0} end
remove(ARGV[1], ARGV[4], ARGV[5])
return {0, 1}
"""
)

# Nothing is taken away before its time by the server's clock, too: of nodes whose clock is ahead there may be
# one, and a lock that it believes to be over is still on for all others.
# ARGV: now, batch, keep, stamp
SWEEP: Final = (
    _COMMON
    + """
local time = redis.call('TIME')
local over = math.min(tonumber(ARGV[1]), tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local until_then = string.format('%.0f', over)
local members = redis.call('ZRANGE', KEYS[3], '-inf', until_then, 'BYSCORE', 'LIMIT', 0, ARGV[2])
for _, member in ipairs(members) do remove(member, ARGV[3], ARGV[4]) end
return #members
"""
)

# ARGV: lower bound, upper bound, limit
SCAN: Final = """
local members = redis.call('ZRANGE', KEYS[5], ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, ARGV[3])
local found = {}
for _, member in ipairs(members) do
  found[#found + 1] = member
  found[#found + 1] = redis.call('HGET', KEYS[4], member)
end
return found
"""

# Only a master that enough replicas have heard from lately knows what everybody has written: one that was cut
# off from them may have a successor. ARGV[1]: replicas that must have been heard
_TRUSTED: Final = """
local info = redis.call('INFO', 'replication')
if not string.find(info, 'role:master', 1, true) then
  return redis.error_reply('READONLY not the master')
end
if tonumber(ARGV[1]) > 0 then
  local near = 0
  for lag in string.gmatch(info, 'state=online,[^\\r\\n]*lag=(%d+)') do
    if tonumber(lag) <= 2 then near = near + 1 end
  end
  if near < tonumber(ARGV[1]) then return redis.error_reply('NOREPLICAS cut off from replicas') end
end
"""

# ARGV: replicas, as above
POSITION: Final = (
    _TRUSTED
    + """
local head = redis.call('GET', KEYS[1]) or '0'
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if #newest == 0 then return head .. '-0' end
return newest[1][1]
"""
)

# ARGV: replicas, version, stamp or "", limit
AFTER: Final = (
    _TRUSTED
    + """
local head = tonumber(redis.call('GET', KEYS[1]) or '0')
local version = tonumber(ARGV[2])
if ARGV[3] ~= '' and version > 0 then
  local id = string.format('%d-', version) .. ARGV[3]
  if #redis.call('XRANGE', KEYS[2], id, id) == 0 then return false end
end
if version == head then return {} end
if version > head then return false end
local next = string.format('%d-', version + 1)
local changes = redis.call('XRANGE', KEYS[2], next .. '0', '+', 'COUNT', ARGV[4])
if #changes == 0 or string.sub(changes[1][1], 1, #next) ~= next then return false end
return changes
"""
)

# What came of a write whose answer was lost: the number of the change that bears its stamp, among the newest.
# ARGV: replicas, as above; stamp
WRITTEN: Final = (
    _TRUSTED
    + """
local ending = '-' .. ARGV[2]
for _, change in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1000)) do
  local version = string.sub(change[1], 1, -#ending - 1)
  if version .. ending == change[1] then return tonumber(version) end
end
return false
"""
)
