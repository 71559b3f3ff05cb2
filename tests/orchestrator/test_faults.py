"""The faults of the legacy system, one test each: its rules allowed them, ours must not."""

import json
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator import errors
from orchestrator.health.daemon import HealthDaemon
from orchestrator.rules.reviews import VerdictWord, aggregate
from orchestrator.service import Orchestrator
from orchestrator.settings import OrchestratorSettings
from registry_api import (
    AgentStatus,
    Kind,
    PhaseStatus,
    Put,
    RecordQuery,
    ReviewStatus,
    TaskStatus,
    Verdict,
    all_records,
    load_settings,
    open_store,
    transact,
)
from registry_api.errors import InvalidInput, RegistryError, TaskNotFound
from tests import legacy
from tests.orchestrator.playing import Play, launchers


def test_a_task_stuck_at_initialized(play):
    """A task's recorded status follows its work; no legacy code path ever changed INITIALIZED."""
    play.create("only")
    seen = [play.now.task.recorded_status]
    agent = play.deploy()
    seen.append(play.now.task.recorded_status)
    play.done(agent)
    play.approve()
    seen.append(play.now.task.recorded_status)
    assert seen == [TaskStatus.INITIALIZED, TaskStatus.ACTIVE, TaskStatus.COMPLETED]


def test_one_finished_agent_completed_the_task(play):
    """A finished agent of one phase does not complete the task; in the legacy system it did, with
    phases still ACTIVE and PENDING."""
    play.create("one", "two")
    play.work()
    assert play.now.status is TaskStatus.ACTIVE
    play.approve()
    assert [p.status for p in play.now.phases] == ["APPROVED", "ACTIVE"]
    assert play.now.status is TaskStatus.ACTIVE


def test_a_task_without_phases_ends_with_its_last_agent(play):
    """A task without phases is COMPLETED when every agent has ended, FAILED if none completed."""
    play.create()
    first, second = play.deploy("a"), play.deploy("b")
    play.done(first)
    assert play.now.status is TaskStatus.ACTIVE
    play.report(second, "failed")
    assert play.now.task.recorded_status is TaskStatus.COMPLETED
    play.create()
    play.report(play.deploy(), "error")
    assert play.now.task.recorded_status is TaskStatus.FAILED


def test_the_current_phase_went_past_the_end(play):
    """Approving the last phase keeps current_phase_index; the legacy system set it past the end."""
    play.create("only")
    play.work()
    play.approve()
    assert play.now.task.current_phase_index == 0


@pytest.mark.parametrize("word", ["completed", "failed", "error"])
def test_a_counter_that_never_fell(play, word):
    """The counter of active agents falls at every terminal status; the legacy system left out
    `failed`, so that it stayed up."""
    play.create("only")
    agent = play.deploy()
    play.report(agent, word)
    assert play.service.store.counts().active_agents == (2 if word == "completed" else 0)
    assert agent not in play.active()


def test_a_dead_agent_came_back(play):
    """An ended agent that reports again stays ended, and its report is kept; in the legacy system
    `working` made it active again, uncounted."""
    play.create("only")
    agent = play.deploy()
    play.deploy("other")
    play.done(agent)
    for word in ("working", "completed"):
        with pytest.raises(errors.AgentEnded):
            play.report(agent, word, "late")
    assert play.agent(agent).status is AgentStatus.COMPLETED
    kept = play.now.latest[[e.agent_id for e in play.now.latest].index(agent)]
    assert kept.message == "late"


@pytest.mark.parametrize("backend", ["memory", "json", "sqlite"])
def test_a_legacy_program_gave_the_last_approval(opened, backend):
    """A phase whose last approval comes from a legacy program can be approved; the review once
    stayed undecided, and killing a reviewer failed an assertion."""
    play = opened(backend).create("only")
    play.work()
    review = play.review
    last = Verdict(
        task_id=play.task_id,
        verdict_id="theirs",
        review_id=review.review_id,
        reviewer_id=review.reviewers[1],
        verdict="approved",
        submitted_at=datetime.now(UTC),
    )
    play.service.verdict(play.task_id, review.review_id, review.reviewers[0], VerdictWord.APPROVED)
    transact(play.service.store, play.task_id, lambda _: (Put(last),), actor="legacy")
    play.service.kill(play.task_id, review.reviewers[1], "over")
    assert play.phase(0).status is PhaseStatus.APPROVED
    assert len(play.now.handovers) == 1


@pytest.mark.parametrize("backend", ["memory", "json", "sqlite"])
def test_a_late_report_replaced_what_the_agent_had_said(opened, backend):
    """A report after an agent's end is kept in the history only; the handover, the next phase's
    context and the task show its last report before the end."""
    play = opened(backend).create("first", "second")
    agent = play.deploy()
    play.report(agent, "completed", "the parser is in src/parser.py", 100)
    for _ in range(3):
        with pytest.raises(errors.AgentEnded):
            play.report(agent, "working", "still looking around")
    assert play.reading.task(play.task_id).agents_ended[0].message.startswith("the parser")
    play.approve()
    (left,) = play.now.handovers
    assert left.summary == "the parser is in src/parser.py"
    assert "still looking" not in play.reading.context(play.task_id).text
    query = RecordQuery(task_id=play.task_id, agent_id=agent)
    kept = all_records(play.service.store, Kind.PROGRESS, query)
    assert [e.message for e in kept].count("still looking around") == 3


@pytest.mark.parametrize("word", ["banana", "", "COMPLETED", "killed", "terminated"])
def test_any_text_was_a_status(play, word):
    """A text that is not a status is refused; the legacy system stored `banana`, which was neither
    active nor terminal and was never counted down."""
    play.create("only")
    agent = play.deploy()
    with pytest.raises(InvalidInput, match="not one that an agent can report"):
        play.report(agent, word)
    assert play.agent(agent).status is AgentStatus.RUNNING


def test_a_report_of_nobody_was_taken(play):
    """A report or finding of an agent that was never deployed is refused; the legacy
    update_agent_progress accepted it."""
    play.create("only")
    revision = play.now.revision
    for call in (play.report, play.add_finding):
        with pytest.raises(errors.AgentNotFound):
            call("nobody")
    assert play.now.revision == revision


def test_limits_were_checked_before_another_lock(opened):
    """max_concurrent and max_agents hold when an agent is added; the legacy system checked them,
    released the lock, and then added it."""
    play = opened(max_concurrent=2, max_agents=3).create("only")
    first = play.deploy("a")
    play.deploy("b")
    with pytest.raises(errors.LimitReached, match="max_concurrent=2"):
        play.deploy("c")
    play.report(first, "failed")
    play.deploy("c")
    play.report(min(play.active()), "failed")
    with pytest.raises(errors.LimitReached, match="max_agents=3"):
        play.deploy("d")


def test_a_task_at_its_limit_is_still_reviewed(opened):
    """A task at max_agents can still be reviewed; the legacy system counted reviewers as agents."""
    play = opened(max_agents=1, max_concurrent=1).create("only")
    play.work()
    play.approve()
    assert play.now.status is TaskStatus.COMPLETED


def test_depth_was_never_enforced(opened):
    """max_depth is enforced; in the legacy system it was only a sentence in the prompt."""
    play = opened(max_depth=2).create("only")
    top = play.deploy("a")
    child = play.deploy("b", parent=top)
    assert play.agent(child).depth == 2
    with pytest.raises(errors.LimitReached, match="max_depth=2"):
        play.deploy("c", parent=child)


def test_a_parent_that_is_not_there(play):
    """An unknown or ended parent has no children; the legacy agent_hierarchy accepted any."""
    play.create("only")
    with pytest.raises(errors.AgentNotFound):
        play.deploy(parent="bogus")
    parent = play.deploy("a")
    play.deploy("b")
    play.done(parent)
    with pytest.raises(errors.AgentEnded):
        play.deploy("c", parent=parent)


def test_a_blocked_twin(play):
    """A second agent of one type is refused while the first is blocked; the legacy system refused
    it only while the first was running or working."""
    play.create("only")
    agent = play.deploy("builder")
    play.report(agent, "blocked")
    with pytest.raises(errors.DuplicateAgent) as refused:
        play.deploy("builder")
    assert refused.value.fields["agent_id"] == agent
    play.deploy("other")


@pytest.mark.parametrize("index", [1, 7, -1])
def test_agents_in_phases_that_are_not_open(play, index):
    """An agent cannot be deployed in a phase that is not open or does not exist; the legacy system
    did not check phase_index."""
    play.create("one", "two")
    with pytest.raises((errors.PhaseClosed, errors.PhaseNotFound)):
        play.deploy(phase_index=index)


def test_agents_in_phases_that_are_reviewed_or_over(play):
    """A phase in review and an ended task accept no new agents; in the legacy system they did."""
    play.create("one")
    play.work()
    with pytest.raises(errors.PhaseClosed):
        play.deploy()
    play.approve()
    with pytest.raises(errors.TaskEnded):
        play.deploy()


def test_a_refused_task_left_its_folder(play, tmp_path):
    """A refused task leaves no folder; the legacy system refused it after making the folders."""
    before = sorted(tmp_path.rglob("*"))
    for cwd in ("${workspaceFolder}/src", str(tmp_path / "nowhere")):
        with pytest.raises(InvalidInput, match="absolute path"):
            play.create("only", client_cwd=cwd)
    assert sorted(tmp_path.rglob("*")) == before
    assert play.service.store.counts().total_tasks == 0


def test_a_phase_was_submitted_with_active_agents(play):
    """A phase with active agents, or with no work done, cannot be submitted; the legacy
    submit_phase_for_review accepted both."""
    play.create("only")
    with pytest.raises(errors.NothingToReview):
        play.service.submit_phase(play.task_id)
    agent = play.deploy()
    with pytest.raises(errors.AgentsActive) as refused:
        play.service.submit_phase(play.task_id)
    assert refused.value.fields["agents"] == [agent]
    assert not play.now.reviews


def test_a_phase_whose_agents_all_failed_is_not_reviewed(play):
    """A phase whose agents all failed is not reviewed; the legacy system reviewed it."""
    play.create("only")
    play.report(play.deploy(), "failed")
    assert (play.phase(0).status, play.now.reviews) == (PhaseStatus.ACTIVE, ())
    play.work("again")
    assert play.phase(0).status is PhaseStatus.IN_REVIEW


def test_a_killed_agent_left_its_phase_stuck(play):
    """Killing the last agent of a phase opens its review; a legacy phase stayed ACTIVE."""
    play.create("only")
    first, second = play.deploy("a"), play.deploy("b")
    play.done(first)
    assert not play.now.reviews
    play.service.kill(play.task_id, second, "not needed")
    assert play.phase(0).status is PhaseStatus.IN_REVIEW
    assert json.loads(play.agent(second).extra)["termination_reason"] == "not needed"


def test_one_caller_gave_all_verdicts(play):
    """Only a reviewer can give a verdict, and only one; in the legacy system a verdict named no
    reviewer, and one caller submitted all three."""
    play.create("only")
    agent = play.work()
    review = play.review
    for nobody in (agent, "anybody", ""):
        with pytest.raises(errors.NotAReviewer):
            play.service.verdict(play.task_id, review.review_id, nobody, VerdictWord.APPROVED)
    first = review.reviewers[0]
    for _ in range(3):
        play.service.verdict(play.task_id, review.review_id, first, VerdictWord.APPROVED)
    with pytest.raises(errors.VerdictExists):
        play.service.verdict(play.task_id, review.review_id, first, VerdictWord.REJECTED)
    assert len(play.now.verdicts) == 1
    assert play.review.review_id == review.review_id


def test_the_first_verdict_ended_every_reviewer(play):
    """A verdict ends only its own reviewer; in the legacy system it completed all reviewers."""
    play.create("only")
    play.work()
    review = play.review
    play.say("approved")
    told, waiting = (play.agent(r) for r in review.reviewers)
    assert (told.status, told.final_verdict) == (AgentStatus.COMPLETED, "approved")
    assert (waiting.status, waiting.final_verdict) == (AgentStatus.REVIEWING, None)


def test_a_late_verdict_approved_the_next_phase(play):
    """A verdict on a finished review is refused; the legacy system applied it to the next phase."""
    play.create("one", "two", "three")
    play.work()
    late = play.review
    play.approve()
    play.deploy()
    for reviewer in (*late.reviewers, "reviewer-4"):
        with pytest.raises((errors.ReviewEnded, errors.VerdictExists)):
            play.service.verdict(play.task_id, late.review_id, reviewer, VerdictWord.NEEDS_REVISION)
    assert [p.status for p in play.now.phases] == ["APPROVED", "ACTIVE", "PENDING"]


def test_a_verdict_for_a_review_that_never_was(play):
    """An unknown review or verdict is refused; the legacy system stored the verdict `zzz` for no
    review, twice, and finalised it."""
    play.create("only")
    with pytest.raises(errors.ReviewNotFound):
        play.service.verdict(play.task_id, "review-none", "r", VerdictWord.APPROVED)
    with pytest.raises(ValueError, match="zzz"):
        VerdictWord("zzz")


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        (["approved", "approved"], PhaseStatus.APPROVED),
        (["approved", "needs_revision"], PhaseStatus.REVISION_NEEDED),
        (["rejected", "approved"], PhaseStatus.REVISION_NEEDED),
    ],
)
def test_approval_is_unanimous(play, verdicts, outcome):
    """A phase needs every reviewer's approval; in the legacy system a majority was enough."""
    play.create("only")
    play.work()
    play.say(*verdicts)
    assert play.phase(0).status is outcome


def test_no_verdicts_approved():
    """An aggregate of no verdicts is an error; in the legacy system it was `approved`."""
    with pytest.raises(ValueError, match="no verdicts"):
        aggregate([])
    assert aggregate(["approved", "APPROVED "]) is VerdictWord.APPROVED
    assert aggregate(["approved", "looks odd"]) is VerdictWord.NEEDS_REVISION


def test_a_review_whose_reviewers_never_started(opened, monkeypatch):
    """A review whose reviewers cannot start fails and escalates its phase; in the legacy system the
    phase stayed UNDER_REVIEW."""
    play = opened(reviewer_kind="claude").create("only")
    monkeypatch.setenv("PATH", "")
    play.work()
    (review,) = play.now.reviews
    assert review.status is ReviewStatus.FAILED
    assert play.phase(0).status is PhaseStatus.ESCALATED
    assert "2 of 2" in json.loads(play.phase(0).extra)["escalation_reason"]
    (reason, _) = [json.loads(play.agent(r).extra)["failure_reason"] for r in review.reviewers]
    assert "not installed" in reason


def test_the_remaining_reviewers_cannot_approve_alone(play):
    """The remaining reviewers cannot approve alone once one is dead; in the legacy system any
    approval was enough."""
    play.create("only")
    play.work()
    review = play.review
    play.say("approved")
    play.service.kill(play.task_id, review.reviewers[1], "stuck")
    assert play.phase(0).status is PhaseStatus.ESCALATED
    assert play.now.review(review.review_id).status is ReviewStatus.FAILED


def test_a_rejection_stands_though_another_reviewer_died(play):
    """A rejection sends the phase to revision even if another reviewer is dead."""
    play.create("only")
    play.work()
    review = play.review
    play.say("rejected")
    play.service.kill(play.task_id, review.reviewers[1], "stuck")
    assert play.phase(0).status is PhaseStatus.REVISION_NEEDED


def test_a_reviewer_is_done_with_its_verdict_only(play):
    """A reviewer cannot complete without its verdict; in the legacy system it ended, and its
    verdict was awaited without end."""
    play.create("only")
    play.work()
    with pytest.raises(errors.VerdictMissing):
        play.done(play.review.reviewers[0])
    assert play.agent(play.review.reviewers[0]).status is AgentStatus.REVIEWING


def test_a_revision_was_never_resubmitted(play):
    """A revision is reviewed again once it is marked ready and its agents have completed; the
    legacy system promised that and did not do it, or did it too early."""
    play.create("only")
    play.work()
    play.say("rejected", "approved")
    first = play.deploy("a")
    assert play.phase(0).status is PhaseStatus.FIXING
    play.done(first)
    assert play.phase(0).status is PhaseStatus.FIXING
    second = play.deploy("b")
    play.service.revision_ready(play.task_id)
    assert play.phase(0).status is PhaseStatus.FIXING
    play.done(second)
    assert play.phase(0).status is PhaseStatus.IN_REVIEW
    play.approve()
    assert play.now.status is TaskStatus.COMPLETED


def test_escalation_was_out_of_reach(opened):
    """A phase that is rejected too often is escalated and can be force-approved with a reason; in
    the legacy system the code that wrote ESCALATED could not run."""
    play = opened(max_revision_rounds=3, reviewers=1).create("one", "two")
    play.work("w0")
    with pytest.raises(errors.PhaseClosed, match="only its reviewers approve"):
        play.service.approve_phase(play.task_id, "I say so")
    rounds = []
    for n in range(1, 4):
        play.say("rejected")
        rounds.append((play.phase(0).status, play.phase(0).revision_round))
        play.work(f"w{n}")
        play.service.revision_ready(play.task_id)
    play.say("needs_revision")
    assert rounds == [(PhaseStatus.REVISION_NEEDED, n) for n in (1, 2, 3)]
    assert play.phase(0).status is PhaseStatus.ESCALATED
    with pytest.raises(InvalidInput, match="reason"):
        play.service.approve_phase(play.task_id, "  ")
    play.service.approve_phase(play.task_id, "good enough")
    kept = json.loads(play.phase(0).extra)
    assert (kept["forced_approval"], kept["force_reason"]) == (True, "good enough")
    assert play.phase(1).status is PhaseStatus.ACTIVE


def test_an_escalated_phase_is_reviewed_again(opened):
    """An escalated phase can be submitted again; the legacy tool for it refused every call."""
    play = opened(reviewers=1).create("only")
    play.work()
    aborted = play.review
    play.service.abort_review(play.task_id, aborted.review_id, "nobody answers")
    assert play.phase(0).status is PhaseStatus.ESCALATED
    play.service.submit_phase(play.task_id)
    play.approve()
    assert play.now.status is TaskStatus.COMPLETED


def test_an_aborted_review_was_aborted_again(play):
    """A finished review cannot be aborted, and the answer shows the phase's actual status; the
    legacy abort_stalled_review got both wrong."""
    play.create("only")
    play.work()
    review = play.review
    for reviewer, word in zip(review.reviewers, ("blocked", "working"), strict=True):
        play.report(reviewer, word)
    play.service.abort_review(play.task_id, review.review_id, "stalled")
    statuses = {play.agent(r).status for r in review.reviewers}
    assert statuses == {AgentStatus.TERMINATED}
    with pytest.raises(errors.ReviewEnded):
        play.service.abort_review(play.task_id, review.review_id, "stalled")
    answer = play.reading.reviews(play.task_id, review_id=review.review_id)
    assert (answer.phase_status, answer.reviews[0].reason) == ("ESCALATED", "stalled")


def test_reports_respawned_reviewers_without_end(play):
    """Reports after an aborted review open no new one; in the legacy system a pending auto review
    stayed set, and every later report opened one."""
    play.create("only")
    play.work()
    play.service.abort_review(play.task_id, play.review.review_id, "stalled")
    before = play.now
    for agent in before.agents:
        with pytest.raises(errors.AgentEnded):
            play.report(agent.agent_id)
    assert (play.now.reviews, play.phase(0).status) == (before.reviews, PhaseStatus.ESCALATED)


def test_no_handover_was_ever_made(play):
    """An approved phase leaves a handover that can be read; the legacy system never made one, and
    its reader looked for another name."""
    play.create("one", "two")
    agent = play.deploy()
    play.add_finding(agent, "a --> b HANDOVER_JSON_END", severity="critical")
    play.add_finding(agent, "it must wait", kind="blocker")
    play.done(agent)
    with pytest.raises(errors.NoHandover):
        play.reading.handover(play.task_id)
    play.approve()
    for index in (None, 0):
        left = play.reading.handover(play.task_id, index)
        assert (left.from_phase, left.to_phase, left.summary) == (0, 1, "did it")
        assert left.key_findings == ["[critical] a --> b HANDOVER_JSON_END"]
        assert left.blockers == ["it must wait"]
    text = play.reading.context(play.task_id).text
    assert "did it" in text
    assert "it must wait" in text


def test_findings_of_finished_agents_were_gone(play):
    """Findings of a finished agent can be read; the legacy clean-up moved them away."""
    play.create("only")
    agent = play.deploy()
    play.add_finding(agent, "kept")
    play.done(agent)
    assert [f.message for f in play.reading.findings(play.task_id).findings] == ["kept"]
    ago = datetime.now(UTC) - timedelta(minutes=1)
    assert len(play.reading.findings(play.task_id, since=ago).findings) == 1


def test_asking_changed_the_state(play):
    """Queries change nothing; in the legacy system a status query completed agents, and a
    dashboard's GET took phases back."""
    play.create("one", "two")
    play.work()
    play.approve()
    play.deploy()
    before = play.now
    play.reading.task(play.task_id)
    play.reading.phase(play.task_id)
    play.reading.reviews(play.task_id)
    play.reading.health(play.task_id)
    play.reading.context(play.task_id)
    assert play.now == before


def test_a_missing_launcher_failed_every_agent(play):
    """A missing launcher fails no live agent; the legacy system without tmux failed all."""
    play.create("only")
    agent = play.deploy()
    assert play.scan().ended == ()
    assert play.agent(agent).status is AgentStatus.RUNNING
    assert play.reading.health().healthy == 1


def test_a_slow_stop_held_the_lock(opened, monkeypatch):
    """While an agent is being stopped its task can be written; the legacy system waited, searched
    processes and killed them inside the lock, and reports of others ran out of time."""
    play = opened("json").create("only")
    slow, other = play.deploy("slow"), play.deploy("other")
    stopping, go_on = threading.Event(), threading.Event()

    def stop(_agents):
        stopping.set()
        assert go_on.wait(60)
        return ()

    monkeypatch.setattr(play.service.deployment, "stop", stop)
    killing = threading.Thread(target=play.service.kill, args=(play.task_id, slow, "enough"))
    killing.start()
    try:
        assert stopping.wait(60)
        play.report(other, progress=70)
        assert play.agent(other).progress == 70
        assert killing.is_alive()
    finally:
        go_on.set()
        killing.join()
    assert play.agent(slow).status is AgentStatus.TERMINATED


def test_a_workspace_in_a_document_was_a_path(opened, tmp_path, tmp_path_factory):
    """The folders that a document names are kept as texts: nothing is read or written there."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "logs").mkdir()
    (elsewhere / "logs" / "a_stream.jsonl").write_text("not ours")
    before = sorted(elsewhere.rglob("*"))
    named = {"workspace": str(elsewhere), "workspace_base": str(elsewhere.parent)}
    keys = {"agents": [{"id": "a", "status": "running"}]}
    path = legacy.write_task(tmp_path, "TASK-1", **keys) / "AGENT_REGISTRY.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    play = opened("auto")
    play.task_id = "TASK-1"
    play.report("a", "working", "ours", 10)
    found = play.reading.output(play.task_id, "a", max_bytes=1000, before=None)
    assert "not ours" not in found.text
    play.report("a", "completed", "ours", 100)
    assert sorted(elsewhere.rglob("*")) == before
    assert play.now.task.workspace == str(elsewhere)


def test_a_filter_was_a_regular_expression(play):
    """A filter finds its text as it is; the legacy filter was an expression, and some of them take
    hours on a text of fifty letters."""
    agent = play.create("only").deploy()
    play.add_finding(agent, "a" * 50 + "!")
    play.add_finding(agent, "the text (a+)+$ itself")
    found = play.reading.findings(play.task_id, text="(a+)+$").findings
    assert [f.message for f in found] == ["the text (a+)+$ itself"]


def test_the_first_workspace_was_scanned_for_all(opened, tmp_path):
    """Each workspace of a process has a scan of its own; the legacy daemon took the first one."""
    first = opened("sqlite").create("only")
    other = tmp_path / "other"
    other.mkdir()
    settings = load_settings(other, env={}, backend="sqlite")
    options = OrchestratorSettings(default_kind="external")
    first.deploy()
    with closing(open_store(settings)) as store:
        second = Play(Orchestrator(store, launchers(), settings=settings, options=options))
        second.create("only").deploy()
        second.deploy("another")
        daemons = [HealthDaemon(play.service, interval=1) for play in (first, second)]
        assert [daemon.turn().looked_at for daemon in daemons] == [1, 2]


def test_cancelling_ends_the_active_agents(play):
    """Cancelling a task ends its active agents and reviews; no legacy task was ever ended."""
    play.create("one", "two")
    play.work("a")
    play.service.cancel_task(play.task_id, "changed our minds")
    assert play.now.status is TaskStatus.CANCELLED
    assert play.active() == set()
    assert {r.status for r in play.now.reviews} == {ReviewStatus.ABORTED}
    for refused in (
        lambda: play.service.cancel_task(play.task_id, "again"),
        lambda: play.deploy("b"),
        lambda: play.service.submit_phase(play.task_id),
        lambda: play.service.revision_ready(play.task_id),
        lambda: play.service.approve_phase(play.task_id, "x"),
    ):
        with pytest.raises(errors.TaskEnded):
            refused()


def test_giving_up_fails_the_task(play):
    """Giving up a task sets it and its escalated phase to FAILED, which no legacy task reached."""
    play.create("only")
    play.work()
    play.service.abort_review(play.task_id, play.review.review_id, "nobody answers")
    play.service.cancel_task(play.task_id, "cannot be done", outcome=TaskStatus.FAILED)
    assert (play.now.status, play.phase(0).status) == (TaskStatus.FAILED, PhaseStatus.FAILED)


def test_a_critique_counts_once_and_not_for_the_verdict(play):
    """A critique is shown once and does not affect the verdict; no legacy code read critiques."""
    play.create("only")
    agent = play.work()
    review = play.review
    for _ in range(2):
        play.service.critique(
            play.task_id, review.review_id, agent, "dense", observations=("long lines",)
        )
    answer = play.reading.reviews(play.task_id, review_id=review.review_id)
    assert [c["summary"] for c in answer.reviews[0].critiques] == ["dense"]
    assert play.phase(0).status is PhaseStatus.IN_REVIEW


def test_a_task_that_is_not_there(play):
    """Every command on an unknown task raises TaskNotFound and creates nothing."""
    service = play.service
    for call in (
        lambda: service.deploy("TASK-none", "a", "p"),
        lambda: service.report("TASK-none", "a", "working", "", 0),
        lambda: service.cancel_task("TASK-none", "r"),
        lambda: play.reading.findings("TASK-none"),
        lambda: play.reading.task("TASK-none"),
    ):
        with pytest.raises(TaskNotFound):
            call()
    assert service.store.counts().total_tasks == 0


def test_every_refusal_says_what_to_do_next():
    """Every refusal class is documented and has its own stable code."""
    kinds = [getattr(errors, name) for name in errors.__all__]
    assert all(issubclass(kind, RegistryError) for kind in kinds)
    codes = {kind.code for kind in kinds}
    assert len(codes) == len(kinds)
    assert errors.__doc__.count("──") == len(kinds)
