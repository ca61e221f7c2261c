"""Code that fleet.yaml approves for a dataset runs without being asked for: that code on that dataset, and nothing that
only looks like it.

With PySyft's own server in this process, as what matters is what PySyft makes of a request.
"""

from __future__ import annotations

import inspect
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import syft as sy
from syft.service.code.user_code import SubmitUserCode
from syft.service.policy.policy import (
    CreatePolicyRuleConstant,
    ExactMatch,
    MixedInputPolicy,
    OutputPolicyExecuteCount,
    SubmitUserPolicy,
)
from syft.service.user.user_roles import ServiceRole

from datasite_worker.approvals import Record
from datasite_worker.credentials import AdminLogin, Identity
from datasite_worker.engine import Hosting
from datasite_worker.pysyft import guard
from datasite_worker.pysyft import server as hosting
from datasite_worker.pysyft.approvals import Approvals
from fleet_common.contract import Approval, code_hash

pytestmark = pytest.mark.process

SOURCE = "def NAME(x):\n    return {'rows': len(x)}\n"
PASSWORD = "a-long-password"


class Site:
    """PySyft's server with a dataset, its owner and a data scientist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        who = Identity(uuid.uuid4().hex, "11" * 32, "root@example.com", PASSWORD)
        self.server = hosting.make_server(Hosting("site", who, folder, dev_mode=False, auto_approval=True, sessions=1))
        hosting.create_admin(self.server, AdminLogin("owner@example.com", "Owner", PASSWORD))
        self.owner = self.login("owner@example.com")
        x = np.arange(6.0)
        self.owner.upload_dataset(sy.Dataset(name="d", asset_list=[sy.Asset(name="x", data=x, mock=x * 0)]))
        self.owner.upload_dataset(sy.Dataset(name="secret", asset_list=[sy.Asset(name="x", data=x, mock=x * 0)]))
        named = {one.name: one.assets["x"].action_id for one in self.owner.datasets}
        self.asset, self.secret = named["d"], named["secret"]
        for name in ("ann", "bob"):
            self.owner.users.create(
                name=name, email=f"{name}@example.com", password=PASSWORD, password_verify=PASSWORD,
                role=ServiceRole.DATA_SCIENTIST,
            )  # fmt: skip
        self.ann, self.bob = self.login("ann@example.com"), self.login("bob@example.com")
        self.record = Record(folder)
        guard.set_up(self.server, self.record, {})
        self.approvals = Approvals(self.server, (), self.record)

    def login(self, email: str) -> Any:
        return sy.login(server=self.server, email=email, password=PASSWORD)

    def asks(self, source: str, **changes: Any) -> Any:
        """Ann's request to run the source's function on the published data; ``changes`` to what she submits."""
        name = source[len("def ") : source.index("(")]
        policy = MixedInputPolicy(client=self.ann, x=self.asset)
        submitted = {
            "code": source,
            "func_name": name,
            "signature": inspect.Signature([inspect.Parameter("x", inspect.Parameter.POSITIONAL_OR_KEYWORD)]),
            "input_policy_type": MixedInputPolicy,
            "input_policy_init_kwargs": policy.init_kwargs,
            "output_policy_type": OutputPolicyExecuteCount,
            "output_policy_init_kwargs": {"limit": 10},
            "input_kwargs": ["x"],
        } | changes
        return self.ann.api.services.code.request_code_execution(SubmitUserCode(**submitted))

    def status(self, request: Any) -> str:
        return str(self.ann.api.services.request.get_by_uid(request.id).status.name)

    def runs(self, request: Any) -> Any:
        return self.ann.api.services.code.call(uid=request.code_id, x=self.asset).get()

    def on(self, asset: Any) -> dict[str, Any]:
        """What Ann submits to run a function on that asset."""
        return {"input_policy_init_kwargs": MixedInputPolicy(client=self.ann, x=asset).init_kwargs}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.server.close()


def source(name: str) -> str:
    return SOURCE.replace("NAME", name)


def listed_for_d(text: str, **limits: Any) -> Approval:
    """The entry of approved_code for that function on the dataset d."""
    return Approval(code_hash(text), "d", **limits)


def test_what_is_listed_runs_at_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Approved while it is asked for, and the log says for whom, what and by which hash."""
    listed = source("listed")
    site.approvals.allow([listed_for_d(listed)])
    with caplog.at_level(logging.INFO, "datasite_worker.pysyft.approvals"):
        request = site.asks(listed)
    assert "APPROVED" == site.status(request)
    assert {"rows": 6} == site.runs(request)
    assert f"approved by fleet.yaml: listed by ann@example.com, {code_hash(listed)}, reads d/x" in caplog.text


def test_one_byte_more_waits(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A near miss is another code; the log gives the owner its hash."""
    site.approvals.allow([listed_for_d(source("near"))])
    changed = source("near").replace("len(x)", "len(x) ")
    with caplog.at_level(logging.INFO, "datasite_worker.pysyft.approvals"):
        request = site.asks(changed)
    assert "PENDING" == site.status(request)
    with pytest.raises(Exception, match="waiting for approval"):
        site.runs(request)
    assert (
        f"waits for approval: near by ann@example.com, {code_hash(changed)}, request {request.id}, reads d/x"
        in caplog.text
    )


def test_empty_lines_at_its_end_are_no_other_code(site: Site) -> None:
    """So the same text can be asked for again, on data that was published anew."""
    site.approvals.allow([listed_for_d(source("ended"))])
    assert "APPROVED" == site.status(site.asks(source("ended") + "\n\n"))


def test_what_waits_is_approved_when_it_is_listed_later(site: Site) -> None:
    """At a reload, or at a start; and taking the hash away again takes back no approval."""
    request, other = site.asks(source("later")), site.asks(source("other"))
    assert "PENDING" == site.status(request)
    site.approvals.allow([listed_for_d(source("later"))])
    assert ("APPROVED", "PENDING") == (site.status(request), site.status(other))
    site.approvals.allow([])
    assert "APPROVED" == site.status(request)


def test_what_the_owner_denied_stays_denied(site: Site) -> None:
    """A hash in fleet.yaml overrules no answer that was given."""
    request = site.asks(source("denied"))
    site.owner.api.services.request.undo(uid=request.id, reason="no")
    site.approvals.allow([listed_for_d(source("denied"))])
    assert "REJECTED" == site.status(request)


POLICY = SubmitUserPolicy(
    code="class Mine(sy.CustomOutputPolicy):\n    def __init__(self):\n        pass\n",
    class_name="Mine",
    input_kwargs=[],
)


def secret_of_bob(site: Site) -> Any:
    return sy.ActionObject.from_obj({"secret": 1}).send(site.bob).id


@pytest.mark.parametrize(
    ("name", "changes", "doubt"),
    [
        (
            "pasted",
            lambda site: {"input_kwargs": ["x=[print(1)] and x"]},
            "the code that would run differs from the listed text",
        ),
        ("renamed", lambda site: {"func_name": "another"}, "the code that would run differs from the listed text"),
        ("policed", lambda site: {"output_policy_type": POLICY}, "it comes with its own policies"),
        (
            "prying",
            lambda site: {
                "input_policy_init_kwargs": MixedInputPolicy(client=site.ann, x=secret_of_bob(site)).init_kwargs
            },
            "it uses data that is neither published nor the requester's own",
        ),
        (
            "constant",
            lambda site: {
                "input_policy_init_kwargs": MixedInputPolicy(
                    client=site.ann, x=CreatePolicyRuleConstant(val=3)
                ).init_kwargs
            },
            "it uses data that is neither published nor the requester's own",
        ),
    ],
    ids=["arguments", "name", "policy", "data", "constant"],
)
def test_what_comes_beside_the_text_is_not_vouched_for(
    site: Site, caplog: pytest.LogCaptureFixture, name: str, changes: Any, doubt: str
) -> None:
    """The hash is of the text; whoever submits other names, policies or data with it waits for the owner."""
    site.approvals.allow([listed_for_d(source(name))])
    with caplog.at_level(logging.WARNING, "datasite_worker.pysyft.approvals"):
        request = site.asks(source(name), **changes(site))
    assert "PENDING" == site.status(request)
    assert doubt in caplog.text


def test_ones_own_data_and_exact_matches_are_vouched_for(site: Site) -> None:
    """What existing scientists write: ExactMatch on an asset."""
    site.approvals.allow([listed_for_d(source("exact"))])
    policy = {"input_policy_type": ExactMatch, "input_policy_init_kwargs": _exact(site)}
    assert "APPROVED" == site.status(site.asks(source("exact"), **policy))


def _exact(site: Site) -> Any:
    (identity,) = MixedInputPolicy(client=site.ann, x=site.asset).init_kwargs
    return {identity: {"x": site.asset}}


def test_an_approval_covers_its_dataset_alone(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The same listed text on another published dataset waits, and the log names what it would read."""
    site.approvals.allow([listed_for_d(source("elsewhere"))])
    with caplog.at_level(logging.WARNING, "datasite_worker.pysyft.approvals"):
        request = site.asks(source("elsewhere"), **site.on(site.secret))
    assert "PENDING" == site.status(request)
    assert "it reads secret/x, and fleet.yaml approves its code for the dataset d" in caplog.text


def test_an_approval_may_be_for_one_user_and_one_asset(site: Site) -> None:
    """Another user's request waits, and so does one for another asset of the dataset."""
    for_bob, for_y = (
        listed_for_d(source("narrow"), **limit) for limit in ({"by": "bob@example.com"}, {"assets": ("y",)})
    )
    site.approvals.allow([for_bob, for_y])
    request = site.asks(source("narrow"))
    assert "PENDING" == site.status(request)
    site.approvals.allow([listed_for_d(source("narrow"), by="Ann@example.com", assets=("x",))])
    assert "APPROVED" == site.status(request)


def test_an_approval_for_two_runs_ends_with_the_second(site: Site) -> None:
    """Also for the next process, which reads the same record. More runs in fleet.yaml go on with the same code."""
    site.approvals.allow([listed_for_d(source("twice"), runs=2)])
    request = site.asks(source("twice"))
    assert [{"rows": 6}, {"rows": 6}] == [site.runs(request), site.runs(request)]
    with pytest.raises(Exception, match="the approval was for 2 runs, and all of them were used"):
        site.runs(request)
    guard.set_up(site.server, Record(site.folder), {})
    with pytest.raises(Exception, match="the approval was for 2 runs"):
        site.runs(request)
    site.approvals.allow([listed_for_d(source("twice"), runs=3)])
    assert {"rows": 6} == site.runs(request)


def test_the_same_text_submitted_again_shares_the_runs(site: Site) -> None:
    """Empty lines at its end make PySyft take it twice; the approval counts both, and approves no third."""
    site.approvals.allow([listed_for_d(source("shared"), runs=1)])
    first, second = site.asks(source("shared")), site.asks(source("shared") + "\n\n")
    assert {"rows": 6} == site.runs(first)
    with pytest.raises(Exception, match="the approval was for one run"):
        site.runs(second)
    assert "PENDING" == site.status(site.asks(source("shared") + "\n\n\n"))


def test_an_approval_ends_in_time(site: Site) -> None:
    """What runs within its time does not run after it."""
    site.approvals.allow([listed_for_d(source("timed"), until="2999-01-01T00:00:00+00:00")])
    request = site.asks(source("timed"))
    assert {"rows": 6} == site.runs(request)
    site.approvals.allow([listed_for_d(source("timed"), until="2026-01-01T00:00:00+00:00")])
    with pytest.raises(Exception, match="the approval ended at 2026-01-01T00:00:00"):
        site.runs(request)


def test_what_the_owner_approves_by_hand_has_no_limits(site: Site) -> None:
    """Also when fleet.yaml lists the code for fewer runs than there are."""
    site.approvals.allow([listed_for_d(source("by_hand"), until="2026-01-01T00:00:00+00:00")])
    request = site.asks(source("by_hand"))
    assert "PENDING" == site.status(request)
    site.owner.api.services.request.apply(uid=request.id)
    assert {"rows": 6} == site.runs(request)


def test_a_damaged_record_lets_only_the_owner_run(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The log says what to do with which file; a user is told no path."""
    site.approvals.allow([listed_for_d(source("recorded"), runs=9)])
    request = site.asks(source("recorded"))
    kept = (site.folder / "approvals.json").read_text()
    (site.folder / "approvals.json").write_text(kept[:40])
    with pytest.raises(Exception, match="cannot count its runs; its log says why") as refused:
        site.runs(request)
    assert (False, True) == (
        str(site.folder) in str(refused.value),
        f"{site.folder}/approvals.json, is damaged" in caplog.text,
    )
    site.approvals.allow([listed_for_d(source("unrecorded"))])
    assert "PENDING" == site.status(site.asks(source("unrecorded")))
    assert {"rows": 6} == site.owner.api.services.code.call(uid=request.code_id, x=site.asset).get()
    (site.folder / "approvals.json").write_text(kept)
    assert {"rows": 6} == site.runs(request)


def test_what_an_earlier_release_approved_is_taken_over(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It kept no record and approved for every dataset: what an entry covers now has its limits, and the log names the
    rest."""
    covered, strayed = site.asks(source("covered")), site.asks(source("strayed"), **site.on(site.secret))
    for request in (covered, strayed):
        site.owner.api.services.request.apply(uid=request.id)
    record, submit = Record(tmp_path), site.server.services.request.submit
    with caplog.at_level(logging.WARNING, "datasite_worker.pysyft.approvals"):
        Approvals(site.server, [listed_for_d(source("covered"), runs=1), listed_for_d(source("strayed"))], record)
    guard.set_up(site.server, record, {})
    assert {"rows": 6} == site.runs(covered)
    with pytest.raises(Exception, match="the approval was for one run"):
        site.runs(covered)
    told = f"strayed by ann@example.com, request {strayed.id}, reads secret/x; deny it, unless it may run"
    assert f"approved earlier, and not by fleet.yaml now: {told}" in caplog.text
    site.server.services.request.submit = submit
    guard.set_up(site.server, site.record, {})
