"""The table for people."""

from bench.report import render


def test_a_part_is_a_table_with_what_failed_and_what_to_know():
    rows = [
        {
            "proxy": "ztproxy",
            "per s": 12345,
            "range": [12000, 13000],
            "parts": {"workers": 40.1, "control": 5.0},
        },
        {"proxy": "nginx", "per s": 20000, "range": [1, 2], "ratio": 0.617},
        {"proxy": "other", "failed": "does not start"},
    ]
    text = render("requests", {"64": rows, "cost": "30%", "notes": ["Mind the gap."]})
    lines = text.splitlines()
    assert lines[:3] == ["## requests", "", "### 64"]
    assert lines[4] == "| proxy   |  per s |            range | ratio |"
    assert lines[6] == "| ztproxy | 12,345 | 12,000 to 13,000 |       |"
    assert "  ztproxy: CPU µs workers 40.1, control 5.0" in lines
    assert "  other FAILED: does not start" in lines
    assert lines[-2:] == ["- cost: 30%", "- Mind the gap."]
