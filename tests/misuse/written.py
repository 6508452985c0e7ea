"""What is written wrongly: suites, prompts, tolerances, faults."""

from tests.misuse.misuse import Misuse, Section

RECORD, REPLAY = "goldens record suite.toml", "goldens replay tiny.h5 --tolerances loose.toml"
DRAWN = '[[randomized]]\nname = "short"\nseed = 1\n'


def _suite(text: str = "", drawn: str = DRAWN, checkpoint: str = "model") -> dict[str, str]:
    return {"suite.toml": f'checkpoint = "{checkpoint}"\n{text}\n{drawn}'}


def _prompts(text: str) -> dict[str, str]:
    return _suite('prompts = "prompts.toml"\ncases = ["own"]', "") | {"prompts.toml": text}


def _case(text: str) -> dict[str, str]:
    return _prompts(f'[[case]]\nname = "own"\n{text}\n')


def _row(text: str, component: str = "layers.0.q_proj", reason: str = "known") -> dict[str, str]:
    return {"loose.toml": f'[[tolerance]]\ncomponent = "{component}"\nreason = "{reason}"\n{text}\n'}


def _fault(text: str) -> dict[str, str]:
    return {
        "faults.toml": '[[fault]]\nname = "q-doubled"\narea = "weights"\nsays = "q is doubled"\nat = ["layers.0.q_proj"]\n'
        + text
    }


SUITES = Section(
    "Suites and prompts",
    "What a TOML file says to record, and cannot mean.",
    (
        Misuse(
            "a suite that is not there",
            "goldens record suit.toml",
            "cannot read suit.toml: No such file or directory",
        ),
        Misuse(
            "a suite that is no text",
            "goldens record tiny.h5",
            "cannot read tiny.h5: it is not UTF-8, where TOML was expected",
        ),
        Misuse(
            "a suite that is no TOML",
            RECORD,
            "suite.toml is not TOML: ...",
            files={"suite.toml": "checkpoint = model\n"},
        ),
        Misuse(
            "a setting that there is not",
            RECORD,
            "suite.toml: object contains unknown field `dtype`; nearest: dtypes",
            files=_suite('dtype = "float32"'),
        ),
        Misuse(
            "a list that is a text",
            RECORD,
            "suite.toml: cases: expected `array`, got `str`",
            files=_suite('cases = "english"'),
        ),
        Misuse(
            "no checkpoint",
            RECORD,
            "suite.toml: object missing required field `checkpoint`",
            files={"suite.toml": DRAWN},
        ),
        Misuse(
            "an empty checkpoint",
            RECORD,
            "suite.toml: checkpoint: expected `str` of length >= 1",
            files=_suite(checkpoint=""),
        ),
        Misuse(
            "a dtype that there is not",
            RECORD,
            "suite.toml: dtypes[0]: invalid enum value 'float64', expected one of bfloat16, float16, float32",
            files=_suite('dtypes = ["float64"]'),
        ),
        Misuse(
            "a dtype twice",
            RECORD,
            "suite.toml: dtypes holds one dtype twice",
            files=_suite('dtypes = ["float32", "float32"]'),
        ),
        Misuse(
            "nothing to record",
            RECORD,
            "suite.toml: expected cases, or entries under [[randomized]] or [[generation]]: there is nothing to record",
            files=_suite(drawn=""),
        ),
        Misuse(
            "a case twice", RECORD, "suite.toml: case short is there twice", files=_suite(drawn=DRAWN + DRAWN)
        ),
        Misuse(
            "a case that there is not",
            RECORD,
            "suite suite asks for case englsh, and harness/prompts.toml has none of that name; nearest: english",
            files=_suite('cases = ["englsh"]'),
        ),
        Misuse(
            "a name that is no part of a path",
            RECORD,
            "suite.toml: randomized[0].name (../up): expected `str` matching regex '^[A-Za-z0-9][A-Za-z0-9._-]*$'",
            files=_suite(drawn='[[randomized]]\nname = "../up"\nseed = 1\n'),
        ),
        Misuse(
            "a seed below 0",
            RECORD,
            "suite.toml: randomized[0].seed (short): expected `int` >= 0",
            files=_suite(drawn='[[randomized]]\nname = "short"\nseed = -1\n'),
        ),
        Misuse(
            "a row without tokens",
            RECORD,
            "suite.toml: randomized[0] (short): length is 0: a row has one token or more",
            files=_suite(drawn=DRAWN + "length = 0\n"),
        ),
        Misuse(
            "lengths the wrong way round",
            RECORD,
            "suite.toml: randomized[0] (short): length runs from 9 down to 3: give the least first",
            files=_suite(drawn=DRAWN + "length = [9, 3]\n"),
        ),
        Misuse(
            "padding of one row",
            RECORD,
            "suite.toml: randomized[0] (short): padding needs a batch of 2 or more and a length [least, most] of two different numbers",
            files=_suite(drawn=DRAWN + 'padding = "left"\n'),
        ),
        Misuse(
            "step 0 of a text",
            RECORD,
            "suite.toml: generation[0] (text): steps count from 1, or back from -1: 0 is none",
            files=_suite(drawn='[[generation]]\nname = "text"\nprompt = "english"\nsteps = [0]\n'),
        ),
        Misuse(
            "a text after a probe",
            RECORD,
            "a probe of embeddings is no prompt to write from: name a text or a chat",
            files=_suite(drawn='[[generation]]\nname = "text"\nprompt = "tiny-norm"\n'),
        ),
        Misuse(
            "a text after prompts that are padded on the right",
            RECORD,
            "case text is generated from: pad its texts on the left",
            files=_suite(drawn='[[generation]]\nname = "text"\nprompt = "right-padded"\n'),
        ),
        Misuse(
            "a case in two ways",
            RECORD,
            "prompts.toml: case[0] (own): expected exactly one of text, texts, chat, token_ids, rows, probe, found text and token_ids",
            files=_case('text = "Hello"\ntoken_ids = [1, 2]'),
        ),
        Misuse(
            "a case of nothing",
            RECORD,
            "prompts.toml: case[0] (own): text is empty",
            files=_case('text = ""'),
        ),
        Misuse(
            "texts without padding",
            RECORD,
            "prompts.toml: case[0] (own): texts and padding come together: texts are a batch, padding is a batch's",
            files=_case('texts = ["One", "Two three"]'),
        ),
        Misuse(
            "a probe without a number",
            RECORD,
            "prompts.toml: case[0] (own): a probe needs tokens, how many of them",
            files=_case('probe = "tiny-norm"'),
        ),
        Misuse(
            "a number of tokens for given ids",
            RECORD,
            "prompts.toml: case[0] (own): tokens belongs to a text or a probe",
            files=_case("token_ids = [1, 2]\ntokens = 5"),
        ),
        Misuse(
            "a prompt twice",
            RECORD,
            "prompts.toml: case own is there twice",
            files=_prompts('[[case]]\nname = "own"\ntext = "One"\n' * 2),
        ),
        Misuse(
            "an id outside the vocabulary",
            RECORD,
            "case own has token id 70000, outside the checkpoint's vocabulary of 512",
            files=_case("token_ids = [1, 70000]"),
        ),
        Misuse(
            "rows of several lengths without padding",
            RECORD,
            'case own has rows of 1 to 2 tokens: say padding = "left" or "right"',
            files=_case("rows = [[1, 2], [3]]"),
        ),
        Misuse(
            "more tiny embeddings than there are",
            RECORD,
            "case own wants 9000 embedding rows that are not zero, the checkpoint has 512",
            files=_case('probe = "tiny-norm"\ntokens = 9000'),
        ),
        Misuse(
            "a chat that the template refuses",
            RECORD,
            "case own: the chat template cannot be applied: a turn of nobody is not known",
            files=_case('[[case.chat]]\nrole = "nobody"\ncontent = "Hello"'),
        ),
    ),
)

TOLERANCES = Section(
    "Tolerance files",
    "What is said to pass, or to fail. There is no row that loosens everything.",
    (
        Misuse(
            "a row without a reason",
            REPLAY,
            "loose.toml: tolerance[0]: object missing required field `reason`",
            files={"loose.toml": '[[tolerance]]\ncomponent = "lm_head"\nrtol = 0.1\n'},
        ),
        Misuse(
            "an empty reason",
            REPLAY,
            "loose.toml: tolerance[0]: reason is empty: say why",
            files=_row("rtol = 0.1", reason=" "),
        ),
        Misuse(
            "a row that says nothing",
            REPLAY,
            "loose.toml: tolerance[0]: say what passes with rtol or with floors, one of the two",
            files=_row(""),
        ),
        Misuse(
            "a tolerance of 1, at which zeros pass",
            REPLAY,
            "loose.toml: tolerance[0]: rtol is 1, expected a number between 0 and 1: at 1, zeros pass",
            files=_row("rtol = 1.0"),
        ),
        Misuse(
            "no number of noise floors",
            REPLAY,
            "loose.toml: tolerance[0]: floors is 0, expected a number above 0",
            files=_row("floors = 0.0"),
        ),
        Misuse(
            "an absolute tolerance alone",
            REPLAY,
            "loose.toml: tolerance[0]: atol is there without rtol: say both, or rtol alone",
            files=_row("floors = 2.0\natol = 0.1"),
        ),
        Misuse(
            "an absolute tolerance below 0",
            REPLAY,
            "loose.toml: tolerance[0]: atol is -1, expected a number above 0",
            files=_row("rtol = 0.1\natol = -1.0"),
        ),
        Misuse(
            "a dtype that there is not",
            REPLAY,
            "loose.toml: tolerance[0]: dtype is 'half', expected one of float32, bfloat16, float16",
            files=_row('rtol = 0.1\ndtype = "half"'),
        ),
        Misuse(
            "a day that is no date",
            REPLAY,
            "loose.toml: tolerance[0].expires: invalid RFC3339 encoded date",
            files=_row('rtol = 0.1\nexpires = "soon"'),
        ),
        Misuse(
            "a row that has expired",
            REPLAY,
            "loose.toml: tolerance[0] (layers.0.q_proj) expired on 2024-02-29: remove it, or review it and give it another day",
            files=_row("rtol = 0.1\nexpires = 2024-02-29"),
        ),
        Misuse(
            "a row for everything",
            REPLAY,
            "loose.toml: tolerance[0] (*) is about every component of tiny.h5, and no tolerance is one for all: write a row for each kind of component",
            files=_row("rtol = 0.1", component="*"),
        ),
        Misuse(
            "two rows that say as much",
            REPLAY,
            "loose.toml: tolerance[0] (layers.0.q_proj) and tolerance[1] (layers.0.q_proj) are equally specific, and both speak of layers.0.q_proj (hello float32 isolated): let one of them say more",
            files={"loose.toml": "".join(_row(f"rtol = 0.{n}")["loose.toml"] for n in (1, 2))},
        ),
        Misuse(
            "an expected failure that passes",
            REPLAY,
            "expected to fail (known), and passes: remove the row from loose.toml, or narrow it",
            files={"loose.toml": '[[expected_failure]]\ncomponent = "layers.0.q_proj"\nreason = "known"\n'},
            status=1,
        ),
    ),
)

FAULTS = Section(
    "Files of faults",
    "Edits of a port's source that an audit makes.",
    (
        Misuse(
            "a fault that edits nothing",
            "goldens audit tiny.h5 --faults faults.toml",
            "faults.toml: fault[0].replace (q-doubled): expected `array` of length >= 1",
            files=_fault("replace = []\n"),
        ),
        Misuse(
            "a fault twice",
            "goldens audit tiny.h5 --faults faults.toml",
            "faults.toml: fault q-doubled is there twice",
            files={
                "faults.toml": _fault('[[fault.replace]]\nfile = "my_port.py"\nfind = "tests"\nwith = "x"\n')[
                    "faults.toml"
                ]
                * 2
            },
        ),
        Misuse(
            "the same fault in two files",
            "goldens audit tiny.h5 --faults faults.toml --faults more.toml",
            "fault q-doubled is in two files of faults: give one of them another name",
            files={
                name: _fault('[[fault.replace]]\nfile = "my_port.py"\nfind = "tests"\nwith = "x"\n')[
                    "faults.toml"
                ]
                for name in ("faults.toml", "more.toml")
            },
        ),
        Misuse(
            "a fault in text that the port has not",
            "goldens audit tiny.h5 --faults faults.toml",
            "fault q-doubled: my_port.py of my_port holds 'scale' 0 times where once was expected: bring the fault up to date with the source",
            files=_fault('[[fault.replace]]\nfile = "my_port.py"\nfind = "scale"\nwith = "x"\n'),
        ),
        Misuse(
            "a fault in a file that the port has not",
            "goldens audit tiny.h5 --faults faults.toml",
            "fault q-doubled: there is no file rope.py in my_port",
            files=_fault('[[fault.replace]]\nfile = "rope.py"\nfind = "scale"\nwith = "x"\n'),
        ),
        Misuse(
            "a fault with which the port does not run",
            "goldens audit tiny.h5 --faults faults.toml --fault q-doubled",
            "fault q-doubled breaks the port: importing it raised ModuleNotFoundError: No module named 'test.fakes'; mend the fault",
            files=_fault('[[fault.replace]]\nfile = "my_port.py"\nfind = "tests"\nwith = "test"\n'),
        ),
        Misuse(
            "a fault in a port without source",
            "goldens audit tiny.h5 --port math:sqrt --faults faults.toml --fault q-doubled",
            "port 'math:sqrt': there is no source of 'math' to patch; is it installed, or in this folder?",
            files=_fault('[[fault.replace]]\nfile = "my_port.py"\nfind = "tests"\nwith = "test"\n'),
        ),
    ),
)
