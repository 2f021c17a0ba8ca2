"""Stands in for an engine in tests of its supervision: an interpreter that answers /health, or misbehaves as told.

Run as `fake_engine.py -m vllm... --port N ...`; what to do stands in the environment variable FAKE_ENGINE (JSON).
"""

import http.server
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


def main() -> None:
    told = json.loads(os.environ.get("FAKE_ENGINE", "{}"))
    state_file = Path(told["state"]) if "state" in told else None
    lives = int(state_file.read_text()) if state_file and state_file.exists() else 0
    if state_file:
        state_file.write_text(str(lives + 1))
    print(f"life {lives + 1}", flush=True)
    if "die" in told and lives >= told.get("die_from", 0):
        print(told["die"], file=sys.stderr, flush=True)
        sys.exit(told.get("status", 1))
    if told.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(told.get("children", 0)):
        # A grandchild in a session of its own that ignores SIGTERM: the worst a tree can hold.
        child = subprocess.Popen([sys.executable, "-c", STUBBORN], start_new_session=True, stdout=subprocess.PIPE)
        child.stdout.readline()
        with Path(told["pids"]).open("a") as file:
            file.write(f"{child.pid}\n")
    time.sleep(told.get("slow_s", 0))
    port = int(sys.argv[sys.argv.index("--port") + 1])
    deaf_after = told.get("deaf_after")

    class Health(http.server.BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self) -> None:
            Health.asked += 1
            deaf = deaf_after is not None and lives == 0 and Health.asked > deaf_after
            self.send_response(503 if deaf else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"argv": sys.argv[1:], "env": dict(os.environ)}).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            print(f"POST {self.path}", flush=True)
            if "die_at_first_answer" in told:
                print(told["die_at_first_answer"], flush=True)
                self.send_response(500)
                self.end_headers()
                os._exit(1)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", port), Health).serve_forever()


if __name__ == "__main__":
    main()
