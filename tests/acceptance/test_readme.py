"""The README's lines, as printed but for the host, the port and the job's id."""

from __future__ import annotations

from tests.support import manual
from tests.support.bash import bash
from tests.support.gateway import Gateway


def test_the_readmes_lines_trigger_poll_list_and_cancel(gateway: Gateway) -> None:
    block = next(block for block in manual.blocks(manual.README.read_text("utf-8"), "sh") if block.startswith("BASE="))
    lines = block.replace("\\\n", "").splitlines()
    trigger, poll, listing, wait, cancel = [line for line in lines if line.startswith("curl")]
    answer = bash(gateway, trigger)
    assert answer.status == 202, answer
    job = answer.json["jobId"]
    polled, listed, changed, cancelled = [
        bash(gateway, line.replace("<jobId>", job)).json for line in (poll, listing, wait, cancel)
    ]
    assert (polled["status"], [one["jobId"] for one in listed["jobs"]]) == ("running", [job])
    assert (changed["jobId"], cancelled["jobId"]) == (job, job)
    assert gateway.finished(job)["phase"] == "ended"
