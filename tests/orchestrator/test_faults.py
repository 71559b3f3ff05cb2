"""The older system's faults, each played again: what its rules let happen must not."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator import errors
from orchestrator.rules.reviews import VerdictWord, aggregate
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
    transact,
)
from registry_api.errors import InvalidInput, RegistryError, TaskNotFound


def test_a_task_stuck_at_initialized(play):
    """No code path ever changed a task's status from INITIALIZED."""
    play.create("only")
    seen = [play.now.task.recorded_status]
    agent = play.deploy()
    seen.append(play.now.task.recorded_status)
    play.done(agent)
    play.approve()
    seen.append(play.now.task.recorded_status)
    assert seen == [TaskStatus.INITIALIZED, TaskStatus.ACTIVE, TaskStatus.COMPLETED]


def test_one_finished_agent_completed_the_task(play):
    """One agent of phase 0 done, and the task was COMPLETED with phases ACTIVE and PENDING."""
    play.create("one", "two")
    play.work()
    assert play.now.status is TaskStatus.ACTIVE
    play.approve()
    assert [p.status for p in play.now.phases] == ["APPROVED", "ACTIVE"]
    assert play.now.status is TaskStatus.ACTIVE


def test_a_task_without_phases_ends_with_its_last_agent(play):
    """COMPLETED when every agent is terminal; FAILED where none of them did its work."""
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
    """Approving the last phase set current_phase_index to a phase that is not there."""
    play.create("only")
    play.work()
    play.approve()
    assert play.now.task.current_phase_index == 0


@pytest.mark.parametrize("word", ["completed", "failed", "error"])
def test_a_counter_that_never_fell(play, word):
    """`failed` was not among the terminal words of the counter: it stayed up for ever."""
    play.create("only")
    agent = play.deploy()
    play.report(agent, word)
    assert play.service.store.counts().active_agents == (2 if word == "completed" else 0)
    assert agent not in play.active()


def test_a_dead_agent_came_back(play):
    """A terminal agent that reported `working` was active again, uncounted."""
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
    """It left the review undecided: killing a reviewer, or a scan, then failed an assertion."""
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
    """It is in the history; handover, next phase's context and task show what was said in time."""
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
    """`banana` was stored: neither active nor terminal, and never counted down."""
    play.create("only")
    agent = play.deploy()
    with pytest.raises(InvalidInput, match="none that an agent reports"):
        play.report(agent, word)
    assert play.agent(agent).status is AgentStatus.RUNNING


def test_a_report_of_nobody_was_taken(play):
    """update_agent_progress succeeded for an agent that was never deployed."""
    play.create("only")
    revision = play.now.revision
    for call in (play.report, play.find):
        with pytest.raises(errors.AgentNotFound):
            call("nobody")
    assert play.now.revision == revision


def test_limits_were_checked_before_another_lock(opened):
    """max_concurrent and max_agents were checked, the lock released, and the agent then added."""
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


def test_a_task_at_its_limit_is_reviewed_all_the_same(opened):
    """Reviewers counted as agents: a task at max_agents could never be reviewed."""
    play = opened(max_agents=1, max_concurrent=1).create("only")
    play.work()
    play.approve()
    assert play.now.status is TaskStatus.COMPLETED


def test_depth_was_never_enforced(opened):
    """max_depth was a sentence in the prompt."""
    play = opened(max_depth=2).create("only")
    top = play.deploy("a")
    child = play.deploy("b", parent=top)
    assert play.agent(child).depth == 2
    with pytest.raises(errors.LimitReached, match="max_depth=2"):
        play.deploy("c", parent=child)


def test_a_parent_that_is_not_there(play):
    """agent_hierarchy took any parent; and a dead one went on having children."""
    play.create("only")
    with pytest.raises(errors.AgentNotFound):
        play.deploy(parent="bogus")
    parent = play.deploy("a")
    play.deploy("b")
    play.done(parent)
    with pytest.raises(errors.AgentEnded):
        play.deploy("c", parent=parent)


def test_a_blocked_twin(play):
    """The same type was refused while it ran or worked, but not while it was blocked."""
    play.create("only")
    agent = play.deploy("builder")
    play.report(agent, "blocked")
    with pytest.raises(errors.DuplicateAgent) as refused:
        play.deploy("builder")
    assert refused.value.fields["agent_id"] == agent
    play.deploy("other")


@pytest.mark.parametrize("index", [1, 7, -1])
def test_agents_in_phases_that_are_not_open(play, index):
    """An explicit phase_index was not looked at: agents in PENDING phases, and in none."""
    play.create("one", "two")
    with pytest.raises((errors.PhaseClosed, errors.PhaseNotFound)):
        play.deploy(phase_index=index)


def test_agents_in_phases_that_are_reviewed_or_over(play):
    """UNDER_REVIEW and APPROVED phases, and tasks that had ended, took new agents."""
    play.create("one")
    play.work()
    with pytest.raises(errors.PhaseClosed):
        play.deploy()
    play.approve()
    with pytest.raises(errors.TaskEnded):
        play.deploy()


def test_a_refused_task_left_its_folder(play, tmp_path):
    """PHASES_REQUIRED came after the folders were made: orphans without a registry."""
    before = sorted(tmp_path.rglob("*"))
    for cwd in ("${workspaceFolder}/src", str(tmp_path / "nowhere")):
        with pytest.raises(InvalidInput, match="absolute path"):
            play.create("only", client_cwd=cwd)
    assert sorted(tmp_path.rglob("*")) == before
    assert play.service.store.counts().total_tasks == 0


def test_a_phase_was_submitted_with_agents_at_work(play):
    """submit_phase_for_review took a phase whose agents worked, and one that nobody worked on."""
    play.create("only")
    with pytest.raises(errors.NothingToReview):
        play.service.submit_phase(play.task_id)
    agent = play.deploy()
    with pytest.raises(errors.AgentsActive) as refused:
        play.service.submit_phase(play.task_id)
    assert refused.value.fields["agents"] == [agent]
    assert not play.now.reviews


def test_a_phase_whose_agents_all_failed_is_not_reviewed(play):
    """It went to review with nothing done; here it waits for an agent that does it."""
    play.create("only")
    play.report(play.deploy(), "failed")
    assert (play.phase(0).status, play.now.reviews) == (PhaseStatus.ACTIVE, ())
    play.work("again")
    assert play.phase(0).status is PhaseStatus.IN_REVIEW


def test_a_killed_agent_left_its_phase_stuck(play):
    """Killing the last agent did not complete the phase: ACTIVE for ever."""
    play.create("only")
    first, second = play.deploy("a"), play.deploy("b")
    play.done(first)
    assert not play.now.reviews
    play.service.kill(play.task_id, second, "not needed")
    assert play.phase(0).status is PhaseStatus.IN_REVIEW
    assert json.loads(play.agent(second).extra)["termination_reason"] == "not needed"


def test_one_caller_gave_all_verdicts(play):
    """A verdict carried no reviewer: one caller submitted all three."""
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
    """One verdict marked all reviewers of the review completed, with that verdict."""
    play.create("only")
    play.work()
    review = play.review
    play.say("approved")
    told, waiting = (play.agent(r) for r in review.reviewers)
    assert (told.status, told.final_verdict) == (AgentStatus.COMPLETED, "approved")
    assert (waiting.status, waiting.final_verdict) == (AgentStatus.REVIEWING, None)


def test_a_late_verdict_approved_the_next_phase(play):
    """A verdict was applied to the current phase, and a finished review still took verdicts."""
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
    """Verdict `zzz` of nobody on no review was stored, twice; finalising it answered True."""
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
    """A majority approved over a rejection."""
    play.create("only")
    play.work()
    play.say(*verdicts)
    assert play.phase(0).status is outcome


def test_no_verdicts_approved():
    """The aggregate of an empty list was `approved`."""
    with pytest.raises(ValueError, match="no verdicts"):
        aggregate([])
    assert aggregate(["approved", "APPROVED "]) is VerdictWord.APPROVED
    assert aggregate(["approved", "looks odd"]) is VerdictWord.NEEDS_REVISION


def test_a_review_whose_reviewers_never_started(opened, monkeypatch):
    """0 of 3 reviewers started, and the phase stayed UNDER_REVIEW for ever."""
    play = opened(reviewer_kind="claude").create("only")
    monkeypatch.setenv("PATH", "")
    play.work()
    (review,) = play.now.reviews
    assert review.status is ReviewStatus.FAILED
    assert play.phase(0).status is PhaseStatus.ESCALATED
    assert "2 of 2" in json.loads(play.phase(0).extra)["escalation_reason"]
    (reason, _) = [json.loads(play.agent(r).extra)["failure_reason"] for r in review.reviewers]
    assert "not installed" in reason


def test_an_approval_of_those_who_are_left_is_none(play):
    """A dead reviewer's part was filled by the others: any approval approved."""
    play.create("only")
    play.work()
    review = play.review
    play.say("approved")
    play.service.kill(play.task_id, review.reviewers[1], "stuck")
    assert play.phase(0).status is PhaseStatus.ESCALATED
    assert play.now.review(review.review_id).status is ReviewStatus.FAILED


def test_a_rejection_stands_though_another_reviewer_died(play):
    """What was found wrong needs mending, whoever else would have said what."""
    play.create("only")
    play.work()
    review = play.review
    play.say("rejected")
    play.service.kill(play.task_id, review.reviewers[1], "stuck")
    assert play.phase(0).status is PhaseStatus.REVISION_NEEDED


def test_a_reviewer_is_done_with_its_verdict_only(play):
    """A reviewer that reported `completed` was gone, its verdict awaited for ever."""
    play.create("only")
    play.work()
    with pytest.raises(errors.VerdictMissing):
        play.done(play.review.reviewers[0])
    assert play.agent(play.review.reviewers[0]).status is AgentStatus.REVIEWING


def test_a_revision_was_never_resubmitted(play):
    """REVISING promised to resubmit by itself and did not; or did so before all was mended."""
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
    """ESCALATED was written by code that could not run, so nothing could be forced."""
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
    """The way back was a tool that refused whatever was asked."""
    play = opened(reviewers=1).create("only")
    play.work()
    aborted = play.review
    play.service.abort_review(play.task_id, aborted.review_id, "nobody answers")
    assert play.phase(0).status is PhaseStatus.ESCALATED
    play.service.submit_phase(play.task_id)
    play.approve()
    assert play.now.status is TaskStatus.COMPLETED


def test_an_aborted_review_was_aborted_again(play):
    """abort_stalled_review took finished reviews, and told where the phase was not."""
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


def test_reports_respawned_reviewers_for_ever(play):
    """A pending auto review was never cleared: every later report opened one more."""
    play.create("only")
    play.work()
    play.service.abort_review(play.task_id, play.review.review_id, "stalled")
    before = play.now
    for agent in before.agents:
        with pytest.raises(errors.AgentEnded):
            play.report(agent.agent_id)
    assert (play.now.reviews, play.phase(0).status) == (before.reviews, PhaseStatus.ESCALATED)


def test_no_handover_was_ever_made(play):
    """The only way to a handover was out of reach, and the reader looked under another name."""
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
    """Cleaning up moved the files away, and with them what a finished agent had found."""
    play.create("only")
    agent = play.deploy()
    play.add_finding(agent, "kept")
    play.done(agent)
    assert [f.message for f in play.reading.findings(play.task_id).findings] == ["kept"]
    ago = datetime.now(UTC) - timedelta(minutes=1)
    assert len(play.reading.findings(play.task_id, since=ago).findings) == 1


def test_asking_changed_the_state(play):
    """A status query marked agents completed; a dashboard's GET took phases back."""
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
    """With tmux missing every live agent counted as dead."""
    play.create("only")
    agent = play.deploy()
    assert play.scan().ended == ()
    assert play.agent(agent).status is AgentStatus.RUNNING
    assert play.reading.health().healthy == 1


def test_cancelling_ends_what_is_at_work(play):
    """A task was never ended: its agents went on."""
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
    """FAILED was a word that no task ever reached; an escalated phase fails with it."""
    play.create("only")
    play.work()
    play.service.abort_review(play.task_id, play.review.review_id, "nobody answers")
    play.service.cancel_task(play.task_id, "cannot be done", outcome=TaskStatus.FAILED)
    assert (play.now.status, play.phase(0).status) == (TaskStatus.FAILED, PhaseStatus.FAILED)


def test_a_critique_counts_once_and_not_for_the_verdict(play):
    """Critiques were a table of their own that nothing read."""
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
    """Every command says so, and makes nothing."""
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
    """Codes are stable and one of a kind."""
    kinds = [getattr(errors, name) for name in errors.__all__]
    assert all(issubclass(kind, RegistryError) for kind in kinds)
    codes = {kind.code for kind in kinds}
    assert len(codes) == len(kinds)
    assert errors.__doc__.count("──") == len(kinds)
