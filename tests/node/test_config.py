"""The settings file: each mistake gets one sentence with its line, and all come at once."""

from pathlib import Path

import pytest

from node.config import Settings, redis_socket
from node.config_file import SettingsFile, load
from node.errors import ConfigError

ROOT = Path(__file__).parents[2]
PEER = '[[peers]]\nname = "archive"\nae_title = "ARCHIVE"\naddress = "127.0.0.1:104"\n'
TLS = '[node.tls]\ncertificate = "c"\nca = "a"\n'
SCANNER = '[[peers]]\nname = "scanner"\nae_title = "SCANNER"\n'
PIPELINE = '[[pipelines]]\nname = "p"\nmodel = "ct-denoise"\noutputs = ["derived"]\n'
RULE = '[[rules]]\nname = "r"\nwhen = { Modality = "CT" }\npipelines = ["p"]\nsend_to = ["archive"]\n'

# Each: the text, the line of the mistake, and what the message must say.
MISTAKES = {
    "syntax": ("[node]\nae_title = AENODE\n", 2, "Invalid value"),
    "unknown section": ("[nodes]\n", 1, "nodes: no such setting; allowed: node, receive"),
    "unknown setting": ('[node]\n\nae_tittle = "A"\n', 3, "allowed: ae_title, bind, data"),
    "long AE title": ('[node]\nae_title = "SEVENTEEN_LETTERS"\n', 2, "1 to 16 printable ASCII"),
    "blank AE title": ('[node]\nae_title = "   "\n', 2, "1 to 16 printable ASCII"),
    "backslash in AE title": ("[node]\nae_title = 'A\\B'\n", 2, "without a backslash"),
    "bind without a port": ('[node]\nbind = "0.0.0.0"\n', 2, '"host:port"'),
    "port too high": ('[node]\nbind = "0.0.0.0:70000"\n', 2, '"host:port"'),
    "size without a unit": ('[receive]\nmin_free = "5"\n', 2, 'such as "5 GiB"'),
    "no association": ("[receive]\nmax_associations = 0\n", 2, "greater than or equal to 1"),
    "text for a number": ('[receive]\nmax_pdu = "big"\n', 2, "valid integer"),
    "negative time": ("[completion]\nquiet_seconds = -1\n", 2, "greater than 0"),
    "unknown broker": ('[broker]\nurl = "amqp://host"\n', 2, "embedded"),
    "unknown device": ('[workers]\ndevice = "gpu"\n', 2, "auto|cpu|cuda"),
    "unknown proof": (PEER + 'prove = "maybe"\n', 5, "'commitment', 'find' or 'none'"),
    "peer without a title": ('[[peers]]\nname = "x"\n', 1, "needs an ae_title, or DICOMweb"),
    "peer with an address and no title": (
        '[[peers]]\nname = "x"\naddress = "h:1"\n',
        1,
        "needs the peer's ae_title",
    ),
    "long name for a title": (
        '[[peers]]\nname = "seventeen-letters"\nreceive_token_file = "t"\n',
        1,
        "at most 16 characters",
    ),
    "two tokens of one sender": (
        '[[peers]]\nname = "x"\nreceive_token_file = "t"\nreceive_token_env = "T"\n',
        1,
        "receive_token_file or receive_token_env, not both",
    ),
    "a name that is another's title": (
        PEER + '[[peers]]\nname = "ARCHIVE"\nreceive_token_file = "t"\n',
        6,
        "is another peer's AE title",
    ),
    "half a digest": (TLS + SCANNER + 'client_certificate = "sha256:ab"\n', 7, "64 hexadecimal digits"),
    "a certificate that nothing checks": (SCANNER + 'client_certificate = "x"\n', 4, "needs an authority"),
    "requests in the clear": ('[dicomweb]\nbind = "0.0.0.0:80"\n', 1, "beyond this machine tls is needed"),
    "TLS without a certificate": ("[dicomweb]\ntls = true\n", 2, "its own or that of node.tls"),
    "certificates of no authority": (
        '[dicomweb.tls]\ncertificate = "c"\nrequire_client_certificate = true\n',
        1,
        "require_client_certificate needs ca",
    ),
    "name used twice": (PEER + PEER, 6, "'archive' is used twice"),
    "name with a slash": ('[[peers]]\nname = "../x"\nae_title = "X"\n', 2, "should match pattern"),
    "strength above one": (PIPELINE + "strength = 1.5\n", 5, "less than or equal to 1"),
    "unknown output": (PIPELINE.replace("derived", "film"), 4, "'derived', 'capture', 'segmentation'"),
    "no output": (PIPELINE.replace('"derived"', ""), 4, "at least 1 item"),
    "unknown keyword": (PEER + PIPELINE + RULE.replace("Modality", "Modalty"), 11, "'Modalty' is not known"),
    "bound without a number": (PEER + PIPELINE + RULE.replace('"CT"', '"<= thin"'), 11, "needs a number"),
    "bad expression": (PEER + PIPELINE + RULE.replace('"CT"', '"~ ("'), 11, "not a regular expression"),
    "no such pipeline": (PEER + RULE, 8, "no pipeline is called 'p'; allowed: none is set up"),
    "no such destination": (PIPELINE + RULE, 9, "no peer with an address is called 'archive'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_line(mistake: str, tmp_path: Path) -> None:
    """The error says file, line, setting and what is allowed."""
    text, line, message = MISTAKES[mistake]
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    matching = [p for p in caught.value.problems if message in f"{p.setting}: {p.message}"]
    assert [p.line for p in matching] == [line], str(caught.value)
    assert f"{file}:{line}: " in str(caught.value)


def test_five_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    """A person mends a file in one go."""
    file = tmp_path / "config.toml"
    file.write_text(
        '[node]\nae_title = ""\nbind = "x"\n[receive]\nmin_free = "much"\n[workers]\ndevice = "tpu"\n'
        '[[rules]]\nname = "r"\nwhen = { Nonsense = 1 }\npipelines = ["p"]\nsend_to = ["a"]\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert [p.line for p in caught.value.problems] == [2, 3, 5, 7, 10, 11, 12], str(caught.value)


def test_the_shipped_file_is_right_and_says_every_setting() -> None:
    """config.toml at the top explains each setting that exists, with its default."""
    text = (ROOT / "config.toml").read_text()
    settings = load(ROOT / "config.toml")
    for section in (
        "receive",
        "dicomweb",
        "completion",
        "broker",
        "index",
        "workers",
        "deliver",
        "web",
        "log",
    ):
        assert getattr(settings, section) == getattr(Settings(), section)
        for name in type(getattr(settings, section)).model_fields:
            assert f"\n{name} = " in text or f"\n# {name} = " in text, f"{section}.{name} is not explained"


def test_paths_are_beside_the_file(tmp_path: Path) -> None:
    """Whatever folder a command is called from; a name of the zoo stays a name."""
    file = tmp_path / "config.toml"
    own = PIPELINE.replace('"p"', '"own"').replace('"ct-denoise"', '"./runs/model"')
    file.write_text('[node]\ndata = "../d"\n' + PIPELINE + own)
    settings = load(file)
    assert settings.node.data == tmp_path.parent.resolve() / "d"
    assert [p.model for p in settings.pipelines] == ["ct-denoise", str(tmp_path.resolve() / "runs/model")]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """No file is an error of its own, not a traceback."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml:0: file: cannot be read"):
        load(tmp_path / "nowhere.toml")


def test_a_bad_change_leaves_the_old_settings_in_force(tmp_path: Path) -> None:
    """A good change is taken up, a bad one is refused as a whole and said."""
    path = tmp_path / "config.toml"
    path.write_text("[completion]\nquiet_seconds = 1\n")
    file = SettingsFile.open(path)
    assert not file.refresh()
    path.write_text("[completion]\nquiet_seconds = -11\n")
    assert file.refresh()
    assert file.error is not None
    assert file.settings.completion.quiet_seconds == 1
    path.write_text("[completion]\nquiet_seconds = 222\n")
    assert file.refresh()
    assert file.error is None
    assert file.settings.completion.quiet_seconds == 222


def test_a_socket_path_always_fits(tmp_path: Path) -> None:
    """The kernel takes 107 bytes for a Unix socket's path; a deep data folder gets a short one elsewhere."""
    deep = tmp_path / ("x" * 120)
    assert len(str(redis_socket(deep))) < 100
    assert redis_socket(deep) != redis_socket(tmp_path / ("y" * 120))
    assert redis_socket(Path("/var/lib/aenode")) == Path("/var/lib/aenode/redis.sock")
