"""What a newcomer would type first: an example or two of each command, shown below its options."""

EXAMPLES = {
    "check": {
        "the whole way, for a checkpoint and a port": "goldens check CHECKPOINT --port my_port:make",
    },
    "record": {
        "what a suite says, into the golden file that it names": "goldens record goldens/suites/model.toml",
        "a checkpoint, its first and last layer only": (
            "goldens record --checkpoint CHECKPOINT -o model.h5 --keep layers=0,-1"
        ),
        "a long recording; typed again after an interruption, it goes on": (
            "goldens record goldens/suites/model.toml --resume"
        ),
    },
    "fetch": {
        "name a file that lies elsewhere, as it is now, in goldens/remote.toml": (
            "goldens fetch hf://datasets/ORGANISATION/NAME/model.h5 --pin goldens/model.h5"
        ),
        "have it here before it is asked for": "goldens fetch goldens/model.h5",
    },
    "show": {
        "cases, components and noise floors": "goldens show model.h5",
    },
    "init": {
        "where a model has what a golden file has": "goldens init model.h5 --model my_model:load --run my_model:run",
    },
    "check_port": {
        "before the first replay of a new port": "goldens check-port model.h5 --port my_port:make",
    },
    "replay": {
        "the port that pyproject.toml names": "goldens replay goldens/*.h5",
        "one case of another port, with a page to look at": (
            "goldens replay model.h5 --port my_port:make --case english --report page.html"
        ),
        "one component in all layers, on golden inputs": (
            "goldens replay model.h5 --include '*.q_proj' --mode isolated"
        ),
    },
    "explain": {
        "what is wrong with attention, in all layers": "goldens explain model.h5 --include '*.self_attn.*'",
    },
    "report": {
        "a page of a run that was kept with --report run.json": "goldens report run.json -o page.html",
    },
    "history": {
        "after `goldens replay ... --history goldens/history.jsonl`": "goldens history goldens/history.jsonl",
    },
    "audit": {
        "mistakes in one area, with one case": "goldens audit model.h5 --fault RoPE --case english",
        "all of them, and at least 99 % have to be caught": "goldens audit goldens/*.h5 --require 99",
    },
    "fuzz": {
        "as many inputs as a minute allows": "goldens fuzz --checkpoint CHECKPOINT --port my_port:make --seconds 60",
    },
    "diff": {
        "the recording that waits beside a golden file": "goldens diff model.h5",
        "two golden files": "goldens diff before.h5 --against after.h5",
    },
    "accept": {
        "model.h5.new becomes model.h5": "goldens accept model.h5",
    },
    "reject": {
        "model.h5.new is dropped": "goldens reject model.h5",
    },
    "verify": {
        "after a download, say": "goldens verify goldens/*.h5",
    },
}
"""Command -> what it does -> how it is typed."""


def epilog(command: str) -> str:
    """The examples of a command as typer shows them: as they stand, not filled into a paragraph."""
    lines = [line for what, typed in EXAMPLES[command].items() for line in (f"  # {what}", f"  {typed}")]
    return "\n".join(["\b", "Examples:", *lines])
