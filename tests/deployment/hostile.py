"""Everything a stranger may send to the service, sent to the real one: what it answers, how long it takes, what it holds.

    python tests/deployment/hostile.py [--quick] [--only WORD] [--schemathesis SECONDS]

An attack fails when the service answers 5xx (but 503), or in anything but JSON with a sentence free of its insides, when
its memory passes a gigabyte, when it lets others wait for more than a second meanwhile, or when a good request is not
answered afterwards. `--quick` takes the attacks that need no patience. Exit status 1 when any attack fails.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from hostile_requests import ATTACKS, KEYED, Attack, Conversation, Reply, form, post
from running import Running, export_model, one_picture, running

MEMORY = 2**30
LEAK = re.compile(
    r"Traceback|/work/|/usr/|/home/|/tmp/|site-packages|\.py\b|\w+Error\b|\w+Exception\b|<\w+ object|0x[0-9a-f]{6}|BytesIO|PIL\b|errno",
    re.IGNORECASE,
)
KEY = "correct-horse"
LIMITS = {"header_seconds": 2, "receive_seconds": 4, "connections": 600}
"""Shorter than the defaults, so that patience is not what the attacks test."""


class Prober:
    """Another user, who asks /health all the time on connections of its own."""

    def __init__(self, service: Running) -> None:
        self.service, self.worst, self._ended = service, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            began = time.perf_counter()
            try:
                reply = Conversation.ask(self.service.address, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", seconds=20)
                healthy = reply.status in (200, 503)  # 503: all connections are taken, which is told at once
            except OSError:
                healthy = False
            self.worst = max(self.worst, time.perf_counter() - began if healthy else 99.0)
            self._ended.wait(0.05)


def faults_of(attack: Attack, replies: list[Reply], service: Running, waited: float) -> Iterator[str]:
    """What is wrong with how the service took an attack."""
    for reply in replies:
        yield from reply_faults(reply, attack)
    if not replies and attack.must_answer:
        yield "no answer"
    if service.peak > MEMORY:
        yield f"{service.peak / 2**20:.0f} MB of memory"
    if waited > 1:
        yield f"others waited {waited:.1f} s"
    if service.process.poll() is not None:
        yield f"the process ended with {service.process.returncode}"
        return
    with closing(Conversation(service.address, 5)) as afterwards:
        began = time.perf_counter()
        try:
            afterwards.send(post(form([("files", "good.png", one_picture())]), key=attack.key))
            good = afterwards.read()
        except OSError as error:
            yield f"a good request got no answer afterwards ({error})"
            return
        if good.status != 200:
            yield f"a good request got {good.status} {good.body[:200]!r} afterwards"
        elif time.perf_counter() - began > 1:
            yield f"a good request took {time.perf_counter() - began:.1f} s afterwards"


def reply_faults(reply: Reply, attack: Attack) -> Iterator[str]:
    if reply.status >= 500 and reply.status != 503:
        yield f"status {reply.status}"
    if attack.expected and reply.status not in attack.expected:
        yield f"status {reply.status}, not {' or '.join(map(str, attack.expected))}"
    if reply.status >= 400:
        try:
            detail = json.loads(reply.body)["detail"] if reply.body else ("" if reply.headless else None)
        except (ValueError, KeyError, TypeError):
            detail = None
        if not isinstance(detail, str) or (not detail and not reply.headless):
            yield f"not a sentence in JSON: {reply.body[:120]!r}"
        elif len(detail) > 400 or LEAK.search(detail):
            yield f"tells of its insides: {detail[:200]!r}" if len(detail) <= 400 else f"{len(detail)} characters"
        if reply.status == 503 and "retry-after" not in reply.headers:
            yield "503 without Retry-After"


def run(attacks: list[Attack], service: Running) -> int:
    """Make the attacks one after another, print the table, return the number of those that the service failed."""
    failed = 0
    for attack in attacks:
        service.peak = 0
        began = time.perf_counter()
        with Prober(service) as prober:
            try:
                replies = attack.make(service.address)
            except OSError as error:
                replies = []
                print(f"  ({attack.name}: {error})")
            seconds = time.perf_counter() - began
        faults = list(dict.fromkeys(faults_of(attack, replies, service, prober.worst)))
        statuses = ", ".join(dict.fromkeys(str(reply.status) for reply in replies)) or "closed"
        failed += bool(faults)
        print(f"{attack.name:<58} {statuses:>9} {seconds:6.2f} s {service.peak / 2**20:5.0f} MB {prober.worst:5.2f} s", flush=True)
        for fault in faults:
            print(f"    FAULT: {fault}", flush=True)
        if service.process.poll() is not None:
            break
    return failed


def unanswered_errors(service: Running, key: str | None) -> list[str]:
    """The service's own count of its answers with 500."""
    secret = f"X-API-Key: {key}\r\n" if key else ""
    request = f"GET /metrics HTTP/1.1\r\nHost: x\r\n{secret}Connection: close\r\n\r\n"
    text = Conversation.ask(service.address, request.encode()).body.decode()
    return [line for line in text.splitlines() if line.startswith("requests_total") and 'status="500"' in line]


def kill_and_restart(model: Path, log: Path) -> list[str]:
    """SIGKILL in the middle of many requests, then start again on the same log."""
    from dlcourse.deployment.records import read_log

    faults, counts = [], []
    for _ in range(3):
        with running(model, "--log", str(log)) as service:
            ended = threading.Event()
            senders = [threading.Thread(target=keep_asking, args=(service.address, ended)) for _ in range(4)]
            for sender in senders:
                sender.start()
            time.sleep(0.7)
            service.process.kill()
            service.process.wait()
            ended.set()
            for sender in senders:
                sender.join()
        counts.append(len(list(read_log(log))))
    if not 0 < counts[0] < counts[1] < counts[2]:
        faults.append(f"records after each kill: {counts}")
    whole = [line for line in log.read_bytes().split(b"\n") if line]
    torn = sum(not is_json(line) for line in whole)
    if torn > 3:
        faults.append(f"{torn} torn lines after 3 kills")
    return faults


def is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def keep_asking(address: tuple[str, int], ended: threading.Event, replies: list[int] | None = None) -> None:
    request = post(form([("files", "good.png", one_picture())]))
    try:
        with closing(Conversation(address, 10)) as conversation:
            while not ended.is_set():
                conversation.send(request)
                status = conversation.read().status
                if replies is not None:
                    replies.append(status)
    except OSError:
        pass


def stop_gracefully(model: Path) -> list[str]:
    """SIGTERM while requests are under way: what was sent is answered, nothing new is taken, the process ends with 0."""
    with running(model) as service:
        body = form([("files", f"{n}.png", one_picture()) for n in range(10)])  # 200 pictures in all: the queue takes 256
        conversations = [Conversation(service.address, 20) for _ in range(20)]
        for conversation in conversations[:16]:
            conversation.send(post(body))
        for conversation in conversations[16:]:  # half sent when the signal comes
            conversation.send(post(body)[:-500])
        time.sleep(0.1)
        service.process.terminate()
        time.sleep(1)  # a stop that did not wait for them would be over by now
        for conversation in conversations[16:]:
            conversation.send(post(body)[-500:])
        statuses, broken = [], 0
        for conversation in conversations:
            try:
                statuses.append(conversation.read().status)
            except OSError:
                broken += 1
            conversation.close()
        faults = []
        if statuses != [200] * len(conversations):
            faults.append(f"statuses {sorted(set(statuses))}, {broken} connections closed without an answer")
        try:
            socket.create_connection(service.address, 1).close()
            faults.append("a new connection was taken after SIGTERM")
        except OSError:
            pass
        try:
            if service.process.wait(10) != 0:
                faults.append(f"exit status {service.process.returncode}")
        except subprocess.TimeoutExpired:
            faults.append("still running 10 s after SIGTERM")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out what takes seconds")
    parser.add_argument("--only", default="", help="attacks whose name holds this word")
    parser.add_argument("--schemathesis", type=float, default=0, metavar="SECONDS", help="then attack by /openapi.json for so long")
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        model = export_model(Path(folder, "model.onnx"))
        for attacks, key in ((ATTACKS, None), (KEYED, KEY)):
            chosen = [attack for attack in attacks if given.only in attack.name and not (given.quick and attack.slow)]
            if not chosen:
                continue
            options = ["--limits", json.dumps(LIMITS), *(["--api-key", key] if key else [])]
            with running(model, *options) as service:
                print(f"{'sent' if not key else 'sent to a service with a key':<58} {'status':>9} {'took':>8} {'memory':>8} {'others':>7}")
                failed += run(chosen, service)
                if service.process.poll() is None and (counted := unanswered_errors(service, key)):
                    failed += 1
                    print(f"    FAULT: the service counted {counted}")
                if given.schemathesis and not key:
                    from schema_attack import attack_for

                    failed += attack_for(service.url, given.schemathesis)
        for name, act in (
            ("killed in the middle of requests, three times", lambda: kill_and_restart(model, Path(folder, "log.jsonl"))),
            ("told to stop in the middle of requests", lambda: stop_gracefully(model)),
        ):
            if given.only in name:
                faults = act()
                failed += bool(faults)
                print(f"{name:<58} {'FAULT: ' + '; '.join(faults) if faults else 'well'}")
    print(f"{failed} failed" if failed else "all withstood")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
