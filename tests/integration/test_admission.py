"""Who may train: rights are decided on the server, whatever a browser shows or sends; long work is confirmed."""

import asyncio
import io
import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from page_session import PRESSED, PageSession, clicked, texts
from servers import ROOT, running_app
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.testing.v1 import AppTest

from jsc_explore import data, paths
from jsc_explore.cli import train
from jsc_explore.cli.app import read_access
from jsc_explore.cli.main import main
from jsc_explore.config import RunConfig
from jsc_explore.errors import FieldError, JscError, NotAllowedError, UnconfirmedError
from jsc_explore.jobs import auth, submit
from jsc_explore.jobs.auth import Access, LoginThrottle
from jsc_explore.jobs.engine.supervisor import Supervisor
from jsc_explore.jobs.limits import LIMITS, Limits
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import Requester
from jsc_explore.store import Store
from jsc_explore.web.components import permissions
from jsc_explore.web.state import services, visitor

SNAPSHOT = ROOT / "results.parquet"
SECRET = "correct horse battery"
LONG = RunConfig(max_epochs=1000, batch_size=16)
RESOURCES = (services.store, services.queue, services.live, services.supervisor)


@pytest.fixture
def place(tmp_path):
    store, queue = Store(tmp_path / "store", SNAPSHOT), Queue(tmp_path / "store")
    yield store, queue
    store.close()
    queue.close()


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.setenv("JSC_EXPLORE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(SNAPSHOT))
    started = []
    monkeypatch.setattr(Supervisor, "start", lambda self: started.append(self))
    monkeypatch.setattr(Supervisor, "stop", lambda self: None)
    monkeypatch.setattr(permissions, "_THROTTLE", LoginThrottle())
    for resource in RESOURCES:
        resource.clear()
    permissions._UNLOCKED.clear()
    page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    page.started = started
    yield page
    for resource in RESOURCES:
        resource.clear()
    permissions._UNLOCKED.clear()


# ---- rights


def test_without_any_setting_everybody_may_train():
    assert Access().refusal() == ""


def test_a_read_only_page_lets_nobody_train():
    closed = Access(read_only=True, password=SECRET, allowed=("@uni.edu",))
    assert "read only" in closed.refusal(unlocked=True, email="ada@uni.edu")


@pytest.mark.parametrize(
    ("email", "may"),
    [
        ("ada@uni.edu", True), ("ADA@Uni.edu ", True), ("eve@lab.org", True), ("eve@uni.edu", False),
        ("eve@sub.lab.org", False), ("eve@evil-lab.org", False), ("@lab.org@evil.org", False),
        ("lab.org", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_a_login_is_allowed_for_addresses_and_domains_on_the_list(email, may):
    assert (Access(allowed=("ada@uni.edu", "@lab.org")).refusal(email=email) == "") is may


def test_either_password_or_login_suffices():
    both = Access(password=SECRET, allowed=("ada@uni.edu",))
    assert both.refusal(unlocked=True) == both.refusal(email="ada@uni.edu") == ""
    assert both.refusal()
    assert Access(allowed=("ada@uni.edu",)).refusal(unlocked=True), "no password was set: none can have been given"


def test_rights_survive_being_passed_to_the_server():
    limits = Limits(session_runs=7, total_runs=None, confirm_s=60)
    for rights in (
        Access(),
        Access(read_only=True),
        Access(password="blank space \n", allowed=("ada@uni.edu", "@lab.org")),
        Access(password_file="/somewhere", limits=limits, trusted_proxies=("127.0.0.1", "10.0.0.0/8")),
    ):
        assert Access.from_environment(rights.to_environment()) == rights
    assert SECRET not in repr(Access(password=SECRET))


def test_a_password_is_compared_whole_and_read_from_its_file_at_each_attempt(tmp_path):
    held = tmp_path / "password"
    held.write_text(f"{SECRET}\n", encoding="utf-8")
    rights = Access(password_file=str(held))
    assert rights.is_password(SECRET)
    assert not rights.is_password(SECRET[:-1])
    assert not rights.is_password("")
    assert not rights.is_password("Größe ☃")
    held.write_text("another password", encoding="utf-8")
    assert not rights.is_password(SECRET)
    held.unlink()
    with pytest.raises(FieldError, match="cannot be read"):
        rights.is_password(SECRET)
    assert not Access().is_password("")


class Clock:
    """A clock that ``time.sleep`` advances."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(auth.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(auth.time, "sleep", self.sleep)

    def sleep(self, seconds):
        self.now += seconds


def test_each_wrong_password_doubles_the_delay_of_its_session(monkeypatch):
    clock, throttle, rights = Clock(monkeypatch), LoginThrottle(), Access(password=SECRET)
    for delay in (1, 2, 4, 8, 16, 30, 30):
        assert "not the launch password" in throttle.attempt(rights, "wrong", "one", "10.0.0.1")
        clock.now += delay - 0.1
        assert "try again in 1 s" in throttle.attempt(rights, SECRET, "one", "10.0.0.1"), "not checked, right or wrong"
        clock.now += 0.1
    assert "not the launch password" in throttle.attempt(rights, "wrong", "one", "10.0.0.1")
    clock.now += auth.RESET_AFTER_S + 1
    assert "not the launch password" in throttle.attempt(rights, "wrong", "one", "10.0.0.1")
    clock.now += 1
    assert throttle.attempt(rights, SECRET, "one", "10.0.0.1") == ""


def test_six_wrong_passwords_of_one_visitor_do_not_delay_another_one_behind_the_same_address(monkeypatch):
    clock, throttle, rights = Clock(monkeypatch), LoginThrottle(), Access(password=SECRET)
    for _ in range(6):
        throttle.attempt(rights, "wrong", "guesser", "10.0.0.1")
        clock.now += 40
    began = clock.now
    assert throttle.attempt(rights, SECRET, "lecturer", "10.0.0.1") == ""
    assert clock.now == began


def test_new_sessions_of_one_address_get_a_guess_a_second_and_the_right_password_a_place_among_them(monkeypatch):
    clock, throttle, rights = Clock(monkeypatch), LoginThrottle(), Access(password=SECRET)
    began, checked = clock.now, 0
    for i in range(200):
        checked += "not the launch password" in throttle.attempt(rights, "wrong", f"session {i}", "10.0.0.1")
    assert checked <= auth.BURST + (clock.now - began) / auth.SECONDS_PER_GUESS + 1
    before = clock.now
    assert throttle.attempt(rights, SECRET, "lecturer", "10.0.0.1") == ""
    assert clock.now - before <= 1.1
    for i in range(40):
        assert throttle.attempt(rights, SECRET, f"student {i}", "10.0.0.1") == "", "the right password costs nothing"
    assert clock.now - before <= 1.1
    assert throttle.attempt(rights, SECRET, "elsewhere", "10.0.0.2") == ""


def test_an_attempt_that_finds_no_place_is_not_checked(monkeypatch):
    clock, throttle, rights = Clock(monkeypatch), LoginThrottle(), Access(password=SECRET)
    taken = 0

    def others_are_faster(seconds):
        nonlocal taken
        clock.sleep(seconds)
        if taken < 100:
            taken += 1
            throttle.attempt(rights, "wrong", f"other {taken}", "10.0.0.1")

    for i in range(10):
        throttle.attempt(rights, "wrong", f"session {i}", "10.0.0.1")
    monkeypatch.setattr(auth.time, "sleep", others_are_faster)
    assert "from your network address" in throttle.attempt(rights, SECRET, "lecturer", "10.0.0.1")


def test_the_throttle_keeps_a_bounded_number_of_sessions_and_addresses(monkeypatch):
    monkeypatch.setattr(auth, "MAX_KEPT", 10)
    throttle = LoginThrottle()
    for i in range(100):
        throttle.attempt(Access(password=SECRET), "wrong", f"session {i}", str(i))
    assert len(throttle._wrong) == len(throttle._budgets) == 10


# ---- the command that starts the page


def options(**given):
    return SimpleNamespace(
        **{
            "read_only": False,
            "launch_password": None,
            "allow": [],
            "limit": [],
            "trusted_proxy": [],
            "hostname": [],
            **given,
        }
    )


def test_the_password_comes_from_a_file_or_the_environment_and_never_from_the_command_line(tmp_path, monkeypatch):
    held = tmp_path / "password"
    held.write_text(SECRET, encoding="utf-8")
    rights = read_access(options(launch_password=held))
    assert rights.is_password(SECRET)
    assert SECRET not in json.dumps(rights.to_environment())
    monkeypatch.setenv(auth.PASSWORD, SECRET)
    assert read_access(options()).is_password(SECRET)
    monkeypatch.setenv(auth.PASSWORD, "short")
    with pytest.raises(FieldError, match="at least 8") as caught:
        read_access(options())
    assert "short'" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"allow": ["uni.edu"]}, "e-mail address or a domain"),
        ({"allow": ["a@b.org,@c.org"]}, "e-mail address or a domain"),
        ({"limit": ["runs=3"]}, "names are session_runs"),
        ({"limit": ["session_runs=-1"]}, "whole number"),
        ({"limit": ["session_runs=1e3"]}, "whole number"),
        ({"limit": ["session_runs"]}, "whole number"),
        ({"launch_password": Path("/nowhere/at/all")}, "cannot be read"),
        ({"hostname": ["jets.uni.edu"]}, "add --trusted-proxy"),
        ({"trusted_proxy": ["*"]}, "IP address or a network"),
        ({"trusted_proxy": ["10.0.0.0/8,*"]}, "IP address or a network"),
    ],
)
def test_a_bad_option_of_the_page_is_one_line(given, says):
    with pytest.raises(FieldError, match=says):
        read_access(options(**given))


@pytest.mark.parametrize("name", ["https://jets.uni.edu", "jets.uni.edu:443", "*", "", "--socket", "a b"])
def test_a_host_name_is_a_name_alone(name):
    assert auth.check_hostname("Jets.Uni.edu") == "jets.uni.edu"
    with pytest.raises(FieldError, match="must be a host name"):
        auth.check_hostname(name)


def test_limits_are_changed_one_by_one():
    limits = read_access(options(limit=["session_runs=10", "confirm_s=none"])).limits
    assert (limits.session_runs, limits.confirm_s, limits.total_runs) == (10, None, LIMITS.total_runs)


# ---- submission


def test_a_requester_without_rights_is_refused_and_queues_nothing(place):
    store, queue = place
    with pytest.raises(NotAllowedError, match="needs the launch password"):
        submit.submit(
            store, queue, [RunConfig(seed=77)], requester=Requester("s", refusal=Access(password=SECRET).refusal())
        )
    assert queue.jobs() == []


def test_a_read_only_process_submits_nothing(place, monkeypatch):
    store, queue = place
    monkeypatch.setenv(auth.READ_ONLY, "1")
    for requester in (submit.TRUSTED, Requester("s")):
        with pytest.raises(NotAllowedError, match="read only"):
            submit.submit(store, queue, [RunConfig(seed=77)], requester=requester, confirmed=True)
    assert queue.jobs() == []


def test_what_takes_long_is_confirmed_with_the_number(place):
    store, queue = place
    long = [LONG.with_(seed=seed) for seed in range(40)]
    limits = Limits(confirm_s=60.0)
    with pytest.raises(UnconfirmedError, match=r"40 runs are expected to take about \d") as caught:
        submit.submit(store, queue, long, requester=Requester("s", limits))
    assert caught.value.seconds > 60
    assert queue.jobs() == []
    answer = submit.submit(store, queue, long[:1], requester=Requester("s", limits), confirmed=True)
    assert len(answer.queued) == 1
    assert submit.submit(store, queue, long[:1], requester=Requester("other", limits)).joined, (
        "what is under way costs nothing more"
    )
    assert submit.submit(store, queue, [RunConfig()], requester=Requester("s", limits)).stored, "nor does what is known"


def test_limits_reach_the_queue(place):
    store, queue = place
    with pytest.raises(FieldError, match="at most 2 runs"):
        submit.submit(
            store, queue, [RunConfig(seed=s) for s in range(70, 73)], requester=Requester("s", Limits(session_runs=2))
        )
    assert queue.jobs() == []


# ---- the command line


def test_a_command_without_a_terminal_is_refused_with_the_number(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(SystemExit) as ended:
        main(["train", "--store", str(tmp_path), "--model", "jsc-s", "--max-epochs", "1000", "--batch-size", "16",
              "--seeds", "200"])  # fmt: skip
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "200 runs are expected to take about" in said
    assert said.count("\n") == 1
    assert "--yes" in said
    queue = Queue(tmp_path)
    assert queue.jobs() == []
    queue.close()


@pytest.mark.parametrize(("typed", "agrees"), [("y\n", True), ("YES\n", True), ("\n", False), ("no", False)])
def test_at_a_terminal_the_command_asks(typed, agrees, capsys):
    error = UnconfirmedError(14, 7200.0, "about 2.0 h")
    assert train.confirm(error, True, lambda: typed) is agrees
    assert "14 runs would take about 2.0 h" in capsys.readouterr().err
    with pytest.raises(JscError, match="--yes"):
        train.confirm(error, False)


def test_the_history_of_a_run_is_printed(tmp_path, capsys):
    queue = Queue(tmp_path)
    queue.request({"4f" * 16: ("c", RunConfig()), "4e" * 16: ("c", RunConfig())})
    queue.start(["4f" * 16])
    queue.finish("4f" * 16, "failed", "Traceback\nValueError: no luck")
    queue.close()
    with pytest.raises(SystemExit) as ended:
        main(["list", "--store", str(tmp_path), "--history", "4f4"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert [line.split("attempt 1: ")[1] for line in lines] == [
        "new → queued, requested", "queued → running, started by the engine", "running → failed, ValueError: no luck",
    ]  # fmt: skip
    for bad, says in (("4", "beginning of 2"), ("zz", "no requested run"), ("", "no requested run")):
        with pytest.raises(SystemExit) as ended:
            main(["list", "--store", str(tmp_path), "--history", bad])
        assert (ended.value.code, says in capsys.readouterr().err) == (2, True)


# ---- the page


def press(app, label):
    (button,) = [button for button in app.button if button.label.startswith(label) and button.key != "held-back"]
    return button


def assert_nothing_is_offered(app):
    offers = [b for b in app.button if b.label.startswith(("Train ", "Add ", "Fill "))]
    assert len(offers) >= 3
    assert all(button.disabled for button in offers)
    assert app.started == []


def test_a_read_only_page_starts_no_engine_and_offers_no_training(app, monkeypatch):
    monkeypatch.setenv(auth.READ_ONLY, "1")
    app.query_params["cells"] = "1024:1e-3~256:1e-3"
    app.run()
    assert not app.exception
    assert "read only" in texts(app.caption)
    assert_nothing_is_offered(app)


def test_a_page_over_a_store_that_can_only_be_read_says_so_and_offers_no_training(app, tmp_path, monkeypatch):
    Store(tmp_path / "theirs").close()
    theirs = Store(tmp_path / "theirs", paths.snapshot(), read_only=True)
    monkeypatch.setattr(services, "store", lambda: theirs)
    app.query_params["cells"] = "1024:1e-3~256:1e-3"
    app.run()
    assert not app.exception
    assert not app.error
    assert "read-only here (opened for reading)" in texts(app.caption)
    assert_nothing_is_offered(app)
    assert not (tmp_path / "theirs" / "queue.sqlite").exists()
    theirs.close()


def test_the_launch_password_opens_a_page_and_no_state_of_a_browser_does(app, monkeypatch):
    monkeypatch.setenv(auth.PASSWORD, SECRET)
    monkeypatch.setattr(auth, "_delay", lambda wrong: 3600.0)
    app.query_params["cells"] = "1024:1e-3"
    for key in ("_UNLOCKED", "unlocked", "_may", "launch password"):
        app.session_state[key] = SECRET if key == "launch password" else True
    app.run()
    assert "needs the launch password" in texts(app.caption)
    assert press(app, "Train ").disabled
    app.text_input(key="launch password").set_value("wrong guess").run()
    assert "not the launch password" in texts(app.error)
    app.text_input(key="launch password").set_value(SECRET).run()
    assert "try again in 3600 s" in texts(app.error)
    monkeypatch.setattr(permissions, "_THROTTLE", LoginThrottle())
    app.text_input(key="launch password").set_value(SECRET).run()
    assert "You may train here" in texts(app.caption)
    assert app.session_state["launch password"] == ""
    press(app, "Train ").click().run()
    assert not app.exception
    assert len(services.queue().jobs(("queued",))) == 5


@pytest.mark.parametrize(
    ("user", "may"),
    [
        ({"is_logged_in": True, "email": "ada@uni.edu", "email_verified": True}, True),
        ({"is_logged_in": True, "email": "ada@uni.edu", "email_verified": False}, False),
        ({"is_logged_in": True, "email": "ada@uni.edu"}, False),
        ({"is_logged_in": True, "email": "ada@uni.edu", "email_verified": None}, False),
        ({"is_logged_in": True, "email": "ada@uni.edu", "email_verified": "true"}, False),
        ({"is_logged_in": False, "email": "ada@uni.edu", "email_verified": True}, False),
        ({"is_logged_in": True, "email": "eve@else.org", "email_verified": True}, False),
        ({}, False),
    ],
)
def test_a_login_opens_a_page_for_those_on_the_list(app, monkeypatch, user, may):
    monkeypatch.setenv(auth.ALLOW, "@uni.edu")
    app.user = user
    app.query_params["cells"] = "1024:1e-3"
    app.run()
    assert not app.exception
    assert press(app, "Train ").disabled is not may
    if may:
        press(app, "Train ").click().run()
    assert bool(services.queue().jobs(("queued",))) is may


def test_what_takes_long_needs_a_second_click_with_the_number_in_it(app, monkeypatch):
    monkeypatch.setenv(auth.LIMIT, json.dumps({"confirm_s": 0}))
    app.query_params["cells"] = "1024:1e-3"
    app.run()
    press(app, "Train ").click().run()
    assert services.queue().jobs() == []
    assert "5 runs would take about" in texts(app.markdown)
    press(app, "Cancel").click().run()
    assert "would take" not in texts(app.markdown)
    press(app, "Train ").click().run()
    app.button(key="confirm").click().run()
    assert not app.exception
    assert len(services.queue().jobs(("queued",))) == 5
    assert "would take" not in texts(app.markdown)


def test_a_limit_is_said_on_the_page(app, monkeypatch):
    monkeypatch.setenv(auth.LIMIT, json.dumps({"session_runs": 3}))
    app.query_params["cells"] = "1024:1e-3"
    app.run()
    press(app, "Train ").click().run()
    assert "you may have at most 3 runs queued or running" in texts(app.error)
    assert services.queue().jobs() == []


def test_the_name_in_the_queue_is_not_the_sessions_own(app):
    app.query_params["cells"] = "1024:1e-3"
    app.run()
    press(app, "Train ").click().run()
    (name,) = {job.session for job in services.queue().jobs()}
    assert name.startswith("page ")
    assert "test session" not in name


def cookie(token, mask):
    masked = bytes(a ^ b for a, b in zip(token, mask * 8, strict=False))
    return {"_streamlit_xsrf": f"2|{mask.hex()}|{masked.hex()}|1764240000"}


def test_a_browser_is_known_again_after_a_reload_by_its_cookie(monkeypatch):
    def identity(cookies):
        monkeypatch.setattr(visitor.st, "context", SimpleNamespace(cookies=cookies))
        (name,) = visitor.identities()
        return name

    monkeypatch.setattr(visitor, "session", lambda: "this one")
    token, other = b"0123456789abcdef", b"0123456789abcdeg"
    first = identity(cookie(token, b"\1\2\3\4"))
    assert identity(cookie(token, b"wxyz")) == first, "the server masks the token anew in each answer"
    assert identity(cookie(other, b"wxyz")) != first
    for nothing in ({}, cookie(b"guessable", b"wxyz"), {"_streamlit_xsrf": "2|zz|zz|1"}, {"_streamlit_xsrf": "x"}):
        assert identity(nothing) == "session this one"


def test_a_login_is_known_again_in_another_browser(monkeypatch):
    monkeypatch.setattr(visitor.st, "context", SimpleNamespace(cookies={}))
    monkeypatch.setattr(visitor, "email", lambda: "ada@uni.edu")
    monkeypatch.setattr(visitor, "session", lambda: "this one")
    assert visitor.identities() == ["login ada@uni.edu", "session this one"]


def test_a_training_is_cancelled_by_who_requested_it_also_after_a_reload(app, monkeypatch):
    def cancel_buttons():
        return [button for button in app.run().button if (button.key or "").startswith("cancel-")]

    app.query_params["cells"] = "1024:1e-3"
    monkeypatch.setattr(visitor, "identities", lambda: ["login ada@uni.edu", "browser 1"])
    app.run()
    press(app, "Train ").click().run()
    assert len(services.queue().jobs(("queued",))) == 5
    for others in (["browser 1"], ["browser 2"], ["session 3"]):
        monkeypatch.setattr(visitor, "identities", lambda others=others: others)
        (button,) = cancel_buttons()
        assert button.disabled
        permissions.cancel([job.run_id for job in services.queue().jobs(("queued",))])
        assert len(services.queue().jobs(("queued",))) == 5
    monkeypatch.setattr(visitor, "identities", lambda: ["login ada@uni.edu", "browser 2"])
    cancel_buttons()[0].click()
    app.run()
    assert services.queue().jobs(("queued",)) == []
    assert not app.exception


LOCAL = {"Host": "localhost:8501", "Origin": "http://localhost:8501"}


@pytest.mark.parametrize(
    ("address", "headers", "is_owner"),
    [
        (None, LOCAL, True),
        (None, {"Origin": "http://127.0.0.1:8501"}, True),
        (None, {"Origin": "http://[::1]:8501"}, True),
        # Proxies on the same machine, as nginx is without further settings, and with those of its manual.
        (None, {**LOCAL, "Origin": "https://jets.uni.edu"}, False),
        (None, {**LOCAL, "X-Forwarded-For": "203.0.113.7"}, False),
        (None, {**LOCAL, "Forwarded": "for=203.0.113.7"}, False),
        ("203.0.113.7", LOCAL, False),
        # No browser.
        (None, {"Host": "localhost:8501"}, False),
    ],
)
def test_only_a_browser_on_the_machine_itself_belongs_to_the_person_who_runs_the_app(
    monkeypatch, address, headers, is_owner
):
    monkeypatch.setattr(visitor.st, "context", SimpleNamespace(ip_address=address, headers=headers))
    assert visitor.is_owner() is is_owner


@pytest.mark.parametrize(
    ("address", "counted_by"),
    [
        (None, "127.0.0.1"), ("203.0.113.7", "203.0.113.7"), ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::1%eth0"), ("unknown", "unknown"),
    ],
)  # fmt: skip
def test_a_machine_has_one_address_whichever_of_its_own_it_uses(monkeypatch, address, counted_by):
    monkeypatch.setattr(visitor.st, "context", SimpleNamespace(ip_address=address))
    assert visitor.client_address() == counted_by


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "address"),
    [
        ([], "127.0.0.1", "203.0.113.7", "127.0.0.1"),
        (["127.0.0.1"], "127.0.0.1", "203.0.113.7", "203.0.113.7"),
        (["127.0.0.1"], "203.0.113.9", "203.0.113.7", "203.0.113.9"),
        # What the visitor itself sent stands before what the proxies have added.
        (["127.0.0.1", "10.1.2.3/8"], "127.0.0.1", "198.51.100.1, 203.0.113.7, 10.0.0.4", "203.0.113.7"),
    ],
)
def test_only_a_named_proxy_says_who_the_visitor_is(monkeypatch, proxies, peer, forwarded, address):
    for name, value in read_access(options(trusted_proxy=proxies)).to_environment().items():
        monkeypatch.setenv(name, value)
    seen = []

    async def application(scope, receive, send):
        seen.append(scope["client"][0])

    configuration = uvicorn.Config(application, interface="asgi3", ws="none")
    configuration.load()
    scope = {"type": "http", "client": (peer, 1), "headers": [(b"x-forwarded-for", forwarded.encode())]}
    asyncio.run(configuration.loaded_app(scope, None, None))
    assert seen == [address]


def test_live_panels_slow_down_as_a_room_fills(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(services, "_LAST_POLL", {})
    monkeypatch.setattr(services.time, "monotonic", lambda: clock[0])
    assert services.poll_interval(0.15, "me") == 0.15
    for i in range(59):
        services.poll_interval(0.15, f"other {i}")
    assert services.poll_interval(0.15, "me") == pytest.approx(0.15 * 60 / services.FULL_RATE_SESSIONS)
    watchers = services.FULL_RATE_WATCHERS
    assert services.poll_interval(3, "me", watchers) == pytest.approx(3 * 60 / watchers), "watching costs less"
    clock[0] += 31
    assert services.poll_interval(0.15, "me") == 0.15
    for i in range(300):
        services.poll_interval(0.15, f"short visit {i}")
        clock[0] += 1
    assert len(services._LAST_POLL) < 200


# ---- a real server and a client that sends what it likes


async def attack(url, config_id):
    """Send all that might start a training: clicks, presses of disabled buttons, made-up states, caches cleared."""
    async with PageSession(url, "cells=1024:1e-3&train_on_click=yes") as session:
        await session.open()
        disabled = any(name.startswith("train-") for name in session.disabled)
        await session.set("grid", clicked(config_id))
        await session.set("grid", clicked(config_id), alone=False)
        for name in [name for name in session.widgets if name.startswith(("train-", "add", "fill"))]:
            await session.set(name, PRESSED)
            await session.set(name, PRESSED, alone=False)
        for made_up in ("_UNLOCKED", "unlocked", "notice", "confirm", "train_on_click"):
            await session.send(made_up, True)
            await session.send(f"$$ID-00000000000000000000000000000000-{made_up}", PRESSED)
        for sent in ({"clear_cache": True}, {"debug_shutdown_runtime": True}, {"load_git_info": True}):
            await session.raw(BackMsg(**sent))
        await session.open()
        return disabled, session.errors


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("options", "environment", "is_open"),
    [(["--read-only"], {}, False), ([], {auth.PASSWORD: SECRET}, False), ([], {}, True)],
    ids=["read only", "password", "open"],
)
def test_what_a_client_sends_trains_on_an_open_page_and_on_no_other(tmp_path, options, environment, is_open):
    """The same messages reach the queue where training is allowed: they would do harm elsewhere, too."""
    run = RunConfig(batch_size=1024)
    digest = data.digest(run.dataset)
    with running_app(tmp_path / "store", *options, **environment) as app:
        disabled, errors = asyncio.run(attack(app.url, run.config_id(digest)))
    assert disabled is not is_open
    queue = Queue(tmp_path / "store")
    assert bool(queue.history(run.run_id(digest))) is is_open
    assert bool(queue.jobs()) is is_open
    queue.close()
    assert not any("Traceback" in text or "Error:" in text for text in errors), errors


async def forge(url):
    """Send forged values of all widgets; return the errors of another session, open meanwhile."""
    async with PageSession(url) as session, PageSession(url) as other:
        await session.open()
        await other.open()
        names, rng = list(session.widgets), random.Random(1)
        for i in range(60):
            await session.forge([names[i % len(names)]] if i % 2 else names, rng)
        await other.open()
        return other.errors


def test_forged_values_of_widgets_are_a_few_lines_in_the_log_and_disturb_nobody(tmp_path):
    with running_app(tmp_path / "store", "--read-only") as app:
        assert asyncio.run(forge(app.url)) == []
        log = app.log.read_text(encoding="utf-8")
    assert 0 < log.count("\nTraceback") < 15, "one of each kind"
    assert "\x1b" not in log.split("Traceback")[0]
