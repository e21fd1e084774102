"""A program for supervisors to start: does what its first argument says."""

import os
import signal
import sys
import time

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["say", code]:
            mark = os.environ["MARK"]
            print("out", mark)
            if asked := os.environ.get("ASK"):
                print(asked, os.environ.get(asked))
            print("err", mark, file=sys.stderr)
            sys.exit(int(code))
        case ["raise"]:
            raise RuntimeError("as asked")
        case ["exit"]:
            sys.exit("does not start")
        case ["wait"]:
            print("waiting", flush=True)
            while True:
                time.sleep(60)
        case ["deaf"]:
            signal.signal(signal.SIGTERM, lambda *_: print("no", flush=True))
            print("waiting", flush=True)
            while True:
                time.sleep(60)
        case ["log", level]:
            print(f'{{"level": "{level}", "event": "a.thing", "service": "child"}}', flush=True)
            while True:
                time.sleep(60)
        case other:
            sys.exit(f"unknown: {other}")
