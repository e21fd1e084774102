"""Ask, follow, and sum up, with the Python client.

SEGUE_URL=http://127.0.0.1:8000 .venv/bin/python examples/ask.py

A program of your own installs the client (`pip install ./client`) and says `from segue_client import …`.
"""

from client import RunFailed, Segue


def main() -> None:
    """Talk to whatever SEGUE_URL names."""
    with Segue() as segue:
        answer = segue.chat("What is the capital of France?")
        print(f"{answer.category}: {answer.response}  ({answer.model_used}, {answer.cost_usd:.6f} USD)")

        for event in segue.stream_chat("Say hello in three languages"):
            if event.name == "token":
                print(event.data["text"], end="", flush=True)
        print()

        begun = segue.start_template("research_report", {"topic": "tidal power", "audience": "investors"})
        for event in segue.events(begun.run_id, tokens=False):
            print(f"  {event.id}: {event.data['fact']}")
        run = segue.wait(begun.run_id)
        print(f"{run.state}: {run.ledger.calls} calls, {run.ledger.cost_usd:.6f} USD")

        try:
            segue.chat("This one has no time", timeout_s=0.01)
        except RunFailed as failed:
            print(f"refused as it should be: {failed}")


if __name__ == "__main__":
    main()
