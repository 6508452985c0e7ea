"""What is typed wrongly, whichever command it is."""

from pathlib import Path

from tests.misuse.misuse import Misuse, Section


def _no_port(project: Path) -> None:
    (project / "pyproject.toml").write_text("")


def _setting(text: str) -> dict[str, str]:
    return {"pyproject.toml": f"[tool.goldens]\n{text}\n"}


def _own_past(project: Path) -> None:
    from tests.fakes import write_golden

    write_golden(project / "model.h5", provenance={"port": "my_port:make"})


def _history(project: Path) -> None:
    from harness.history.entry import Entry
    from harness.history.log import append
    from harness.report.result import Run

    append(project / "runs.jsonl", Entry.of(Run.from_results("tiny.h5", "my_port:make", [], [])))


def _waiting(project: Path) -> None:
    (project / "tiny.h5.new").write_bytes((project / "tiny.h5").read_bytes())


TYPED = Section(
    "The command line",
    "What is typed that no command takes, or that a golden file does not have.",
    (
        Misuse("a command that there is not", "goldens reply tiny.h5", "No such command 'reply'..."),
        Misuse("an option that there is not", "goldens replay tiny.h5 --fast", "No such option...--fast..."),
        Misuse("no golden file", "goldens replay", "Missing argument 'FILE'."),
        Misuse(
            "an option without its value",
            "goldens replay tiny.h5 --port",
            "Option '--port' requires an argument.",
        ),
        Misuse(
            "a mode that there is not",
            "goldens replay tiny.h5 --mode backwards",
            "Invalid value for '--mode': ...'backwards' is not one of...",
        ),
        Misuse(
            "a word where a number belongs",
            "goldens replay tiny.h5 --timeout soon",
            "Invalid value for '--timeout': ...valid...",
        ),
        Misuse(
            "a golden file that is not there",
            "goldens replay tinny.h5",
            "there is no golden file tinny.h5: record it with `goldens record`",
        ),
        Misuse(
            "a folder where a golden file belongs",
            "goldens show checkpoint",
            "checkpoint is a folder: name the golden file in it",
        ),
        Misuse(
            "a component that was not recorded",
            "goldens replay tiny.h5 --include '*.k_proj'",
            "no component of tiny.h5 matches '*.k_proj'; nearest: layers.0.q_proj",
        ),
        Misuse(
            "a case that was not recorded",
            "goldens replay tiny.h5 --case hallo",
            "case 'hallo' was not recorded in tiny.h5; recorded: hello",
        ),
        Misuse(
            "everything left out",
            "goldens replay tiny.h5 --exclude '*'",
            "nothing that was asked for is recorded in tiny.h5: `goldens show` lists what is",
        ),
        Misuse(
            "a mode that nothing selected has",
            "goldens replay tiny.h5 --include layers.0 --mode isolated",
            "nothing selected of tiny.h5 has a golden for isolated replay: composites run end to end only",
        ),
        Misuse(
            "what may stay unmeasured, without a reason",
            "goldens replay tiny.h5 --unmeasured '*.act'",
            "'*.act' does not say what may stay unmeasured and why: write it as GLOB=REASON",
        ),
        Misuse(
            "no port, and none in the settings",
            "goldens replay tiny.h5",
            "no port is named: say which with --port MODULE:FACTORY, or as port under [tool.goldens] in pyproject.toml",
            change=_no_port,
        ),
        Misuse(
            "a port without a factory",
            "goldens replay tiny.h5 --port my_port",
            "port 'my_port' does not name a factory: write it as MODULE:FACTORY",
        ),
        Misuse(
            "a port's module that is not there",
            "goldens replay tiny.h5 --port my_prot:make",
            "port 'my_prot:make': no module named 'my_prot' can be imported; is it installed, or in this folder?",
        ),
        Misuse(
            "a factory that is not there",
            "goldens replay tiny.h5 --port my_port:made",
            "port 'my_port:made': module 'my_port' has no factory 'made'; nearest: make, Case",
        ),
        Misuse(
            "a factory that is no function",
            "goldens replay tiny.h5 --port my_port:NAMES",
            "port 'my_port:NAMES' is a tuple: name the function that makes the port",
        ),
        Misuse(
            "a checkpoint that is not there",
            "goldens replay tiny.h5 --checkpoint ./chekpoint",
            "checkpoint ./chekpoint is neither a folder nor a hub id such as ORGANISATION/MODEL",
        ),
        Misuse(
            "a report of a format that there is not",
            "goldens replay tiny.h5 --report run.pdf",
            "run.pdf: no report has the suffix '.pdf'; there are .html, .json, .md, .xml",
        ),
        Misuse(
            "a report into a folder that is not there",
            "goldens replay tiny.h5 --report out/run.html",
            "out/run.html: the folder out is not there: make it first",
        ),
        Misuse(
            "a history in what is no folder",
            "goldens replay tiny.h5 --history suite.toml/runs.jsonl",
            "the history suite.toml/runs.jsonl cannot be written: File exists",
        ),
        Misuse(
            "settings that are no TOML",
            "goldens replay tiny.h5",
            "pyproject.toml is not TOML: ...",
            files={"pyproject.toml": "[tool.goldens\n"},
        ),
        Misuse(
            "settings that are no table",
            "goldens replay tiny.h5",
            "pyproject.toml: [tool.goldens] is 1, expected a table: port = 'MODULE:FACTORY'",
            files={"pyproject.toml": "[tool]\ngoldens = 1\n"},
        ),
        Misuse(
            "a port in the settings that is no text",
            "goldens replay tiny.h5",
            "pyproject.toml: port under [tool.goldens] is 3, expected 'MODULE:FACTORY'",
            files=_setting("port = 3"),
        ),
        Misuse(
            "a tolerance file in the settings that is no text",
            "goldens replay tiny.h5 --port my_port:make",
            "pyproject.toml: tolerances under [tool.goldens] is [], expected the path of a TOML file",
            files=_setting("tolerances = []"),
        ),
        Misuse(
            "files of faults in the settings that are no texts",
            "goldens audit tiny.h5",
            "pyproject.toml: faults under [tool.goldens] is [1], expected paths of TOML files",
            files=_setting("port = 'my_port:make'\nfaults = [1]"),
        ),
        Misuse(
            "nothing to record",
            "goldens record",
            "nothing to record: name a SUITE.toml, or a checkpoint with --checkpoint DIR_OR_HUB_ID",
        ),
        Misuse(
            "--like for a recording of the reference",
            "goldens record suite.toml --like tiny.h5",
            "--like and --port are for a recording of a port: give --from-port as well",
        ),
        Misuse(
            "a suite for a recording of a port",
            "goldens record suite.toml --from-port",
            "--from-port records what the golden file --like names has: leave out SUITE.toml, --keep, --dry-run and --resume",
        ),
        Misuse(
            "a recording of a port like nothing",
            "goldens record --from-port",
            "a recording of a port needs --like GOLDEN.h5, a golden file of the reference, and -o FILE.h5 for its own",
        ),
        Misuse(
            "to go on with what records nothing",
            "goldens record suite.toml --dry-run --resume",
            "--dry-run records nothing that --resume could go on with: give one of them",
        ),
        Misuse(
            "parts where something else is",
            "goldens record suite.toml -o small.h5 --resume",
            "small.h5.parts is there, and is no folder of a recording's parts: move it away, or record without --resume",
            files={"small.h5.parts": "mine"},
        ),
        Misuse(
            "a password in a file that is shared",
            "goldens fetch https://me:secret@example.org/model.h5 --pin model.h5",
            "https://example.org/model.h5 is given with a password, and remote.toml is there to be shared: pin it without, and put the password into fsspec's own settings",
        ),
        Misuse(
            "a dtype that is not recorded",
            "goldens record suite.toml --dtype float64",
            "dtype 'float64' cannot be recorded: choose from float32, bfloat16, float16",
        ),
        Misuse(
            "a case that the suite has not",
            "goldens record suite.toml --case shrt",
            "there is no case 'shrt' to record; nearest: short, short-first, chat",
        ),
        Misuse(
            "a --keep that is not understood",
            "goldens record suite.toml --keep layer=1",
            "--keep 'layer=1' is not understood: write components=GLOB, layers=0,3-5,-1, tokens=0-15,-1 or tokens=sample:8",
        ),
        Misuse(
            "a --keep of what is no number",
            "goldens record suite.toml --keep layers=first",
            "--keep layers=first: 'first' is neither a number nor a range such as 3-5",
        ),
        Misuse(
            "a --keep of a layer that there is not",
            "goldens record suite.toml --keep layers=7",
            "--keep layers=7: there are layers 0 to 2",
        ),
        Misuse(
            "a --keep of components that there are not",
            "goldens record suite.toml --keep components=*.qproj",
            "--keep components=*.qproj matches no component",
        ),
        Misuse(
            "a --keep that leaves nothing",
            "goldens record suite.toml --keep components=layers.1.* --keep layers=0",
            "--keep components=layers.1.* layers=0 leaves nothing of 74 components",
        ),
        Misuse(
            "a --keep of tokens that no case has",
            "goldens record suite.toml --keep tokens=90-99",
            "--keep tokens=90-99 leaves nothing of a case of 12 tokens",
        ),
        Misuse(
            "a golden file into a folder that is not there",
            "goldens record suite.toml -o out/small.h5",
            "cannot write out/small.h5: No such file or directory; choose a folder that exists and can be written to",
        ),
        Misuse(
            "a golden file under the name of something else",
            "goldens record suite.toml -o suite.toml",
            "suite.toml is there already and is no whole golden file: move it away, then record again",
        ),
        Misuse(
            "a check into a file that a port was recorded into",
            "goldens check model -o model.h5",
            "model.h5 is there already, recorded from the port my_port:make: name another file with -o FILE.h5",
            change=_own_past,
        ),
        Misuse(
            "a check into a golden file of another checkpoint",
            "goldens check model -o tiny.h5",
            "tiny.h5 is there already, and is not of model: name another file with -o FILE.h5 (checkpoint model is not the recorded one: architectures is ['Qwen2ForCausalLM'], recorded 'absent', attention_dropout is 0.0, recorded 'absent', bos_token_id is 256, recorded 'absent', eos_token_id is 258, recorded 'absent')",
        ),
        Misuse(
            "a draft that cannot be imported",
            "goldens init tiny.h5 --model my_port:make -o my-port.py",
            "my-port.py cannot be imported: name the draft with -o, as in -o my_port.py",
        ),
        Misuse(
            "a draft in place of a file",
            "goldens init tiny.h5 --model my_port:make -o my_port.py",
            "my_port.py is there already, and is not replaced: name another file with -o FILE.py",
        ),
        Misuse(
            "a draft into a folder that is not there",
            "goldens init tiny.h5 --model my_port:make -o ports/draft.py",
            "there is no folder ports: make it, or name another file with -o FILE.py",
        ),
        Misuse(
            "a model without a name",
            "goldens init tiny.h5 --model my_port -o draft.py",
            "model 'my_port' names nothing: write it as MODULE:NAME",
        ),
        Misuse(
            "a model that its module has not",
            "goldens init tiny.h5 --model my_port:model -o draft.py",
            "model 'my_port:model': module 'my_port' has no 'model'",
        ),
        Misuse(
            "a model that is none",
            "goldens init tiny.h5 --model my_port:NAMES -o draft.py",
            "model 'my_port:NAMES' is a tuple: expected an nnx.Module, a pair (linen module, variables), or a function that gives one of these",
        ),
        Misuse(
            "a model that is made of something else",
            "goldens init tiny.h5 --model my_port:case_inputs -o draft.py",
            "model 'my_port:case_inputs' takes seed: expected an nnx.Module, a pair (linen module, variables), or a function that gives one of these, called without arguments or with (checkpoint, dtype=...)",
        ),
        Misuse(
            "a model that cannot be made",
            "goldens init tiny.h5 --model draw:load -o draft.py",
            "model 'draw:load' could not be made: it raised ZeroDivisionError: division by zero",
            files={"draw.py": "def load():\n    return 1 / 0\n"},
        ),
        Misuse(
            "what is no function to run it",
            "goldens init tiny.h5 --model flaxen:load --run flaxen:STEPS -o draft.py",
            "run 'flaxen:STEPS' is a int, and cannot be called",
            files={
                "flaxen.py": "from flax import nnx\nSTEPS = 3\ndef load():\n    return nnx.Linear(4, 4, rngs=nnx.Rngs(0))\n"
            },
        ),
        Misuse(
            "a function that does not run it",
            "goldens init tiny.h5 --model waxen:load --run waxen:run -o draft.py",
            "model 'waxen:load' cannot be run: called as run(model, token_ids=, positions=, attention_mask=, query_index=), it raised TypeError: run() got an unexpected keyword argument 'attention_mask'",
            files={
                "waxen.py": "from flax import nnx\ndef run(model, x):\n    return model(x)\ndef load():\n    return nnx.Linear(4, 4, rngs=nnx.Rngs(0))\n"
            },
        ),
        Misuse(
            "a fault that there is not",
            "goldens audit tiny.h5 --fault rope-of",
            "no fault, and no area of faults, matches 'rope-of'; nearest: dropout-left-on",
        ),
        Misuse(
            "a shard that there is not",
            "goldens audit tiny.h5 --shard 8/7",
            "a shard is K/N with K from 1 to N, as 2/7, not '8/7'",
        ),
        Misuse(
            "an audit of a port that does not hold",
            "goldens audit tiny.h5 --port my_port:make_faulty",
            "tiny.h5: the port my_port:make_faulty fails without any fault, first at layers.0.q_proj (isolated): an audit needs one that holds; `goldens replay` shows what is wrong",
        ),
        Misuse(
            "nothing to fuzz",
            "goldens fuzz",
            "nothing to fuzz: name a checkpoint with --checkpoint DIR_OR_HUB_ID, or a SUITE.toml",
        ),
        Misuse(
            "a dtype that is not fuzzed",
            "goldens fuzz --checkpoint model --dtype int8",
            "dtype 'int8' is none of float32, bfloat16, float16",
        ),
        Misuse(
            "a fuzzed case into a folder that is not there",
            "goldens fuzz --checkpoint model --save out/prompts.toml",
            "out is no folder: choose one that exists for --save",
        ),
        Misuse(
            "a fuzzed case under a name that is taken",
            "goldens fuzz --checkpoint model --save prompts.toml --name short",
            "prompts.toml has a case short already: choose another name with --name",
            files={"prompts.toml": '[[case]]\nname = "short"\ntext = "Hello"\n'},
        ),
        Misuse(
            "a diff of three golden files",
            "goldens diff tiny.h5 model.h5 --against other.h5",
            "--against holds one golden file against another: name one FILE before it",
        ),
        Misuse(
            "a diff of dtypes that is not understood",
            "goldens diff tiny.h5 --against tiny.h5 --dtype float32:",
            "--dtype 'float32:' is not understood: write float32, or float32:bfloat16",
        ),
        Misuse(
            "a diff of a dtype that was not recorded",
            "goldens diff tiny.h5 --against tiny.h5 --dtype float16",
            "dtype 'float16' was not recorded in tiny.h5; recorded: float32",
        ),
        Misuse(
            "a diff of components that there are not",
            "goldens diff tiny.h5 --against tiny.h5 --include '*.k_proj'",
            "no component of tiny.h5 and tiny.h5 matches '*.k_proj'; nearest: layers.0.q_proj",
        ),
        Misuse(
            "a diff of a case that there is not",
            "goldens diff tiny.h5 --against tiny.h5 --case hallo",
            "tiny.h5 and tiny.h5 have no case 'hallo'; they have hello",
        ),
        Misuse(
            "a diff of nothing",
            "goldens diff tiny.h5 --against tiny.h5 --exclude '*'",
            "nothing that was asked for can be compared in tiny.h5 and tiny.h5",
        ),
        Misuse(
            "a diff with a recording that does not wait",
            "goldens diff tiny.h5",
            "tiny.h5 has no pending recording: tiny.h5.new is not there",
        ),
        Misuse(
            "to accept nothing in particular",
            "goldens accept",
            "nothing is named to accept: name golden files, or give --all; pending: tiny.h5",
            change=_waiting,
        ),
        Misuse(
            "to accept some, and all",
            "goldens accept tiny.h5 --all",
            "goldens accept takes the names of golden files, or --all, and not both",
        ),
        Misuse(
            "to accept by the pending recording's name",
            "goldens accept tiny.h5.new",
            "tiny.h5.new is a pending recording: name its golden file, tiny.h5",
        ),
        Misuse(
            "no report to write",
            "goldens report run.json",
            "nothing to write: name a report with -o PATH, or ask for --annotations",
        ),
        Misuse(
            "runs that are not there",
            "goldens report runs.json -o run.html",
            "cannot read runs.json: No such file or directory",
        ),
        Misuse(
            "a run of a golden file that the history has not",
            "goldens history runs.jsonl --golden big.h5",
            "runs.jsonl has no run of big.h5; it has runs of tiny.h5",
            change=_history,
        ),
    ),
)
