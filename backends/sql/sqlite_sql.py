"""Driver SQL, written by ``python -m backends.sql.compiled``: edit statements.py."""

from __future__ import annotations

from typing import Any

STATEMENTS: dict[str, str] = {'head': 'SELECT tasks.lineage, tasks.revision, (SELECT max(feed.number) AS max_1 FROM feed '
         'WHERE feed.task_id = tasks.task_id) AS anon_1, tasks.feed_floor, tasks.chain FROM '
         'tasks WHERE tasks.task_id = :task_id',
 'positions': 'SELECT tasks.task_id, tasks.lineage, tasks.revision, tasks.chain FROM tasks',
 'task_state': 'SELECT tasks.lineage, tasks.revision, tasks.status, tasks.recorded_status, '
               'tasks.phases, tasks.agents, tasks.active_agents, tasks.expired_before, '
               "tasks.chain, (SELECT meta.value FROM meta WHERE meta.name = 'feed_id') AS "
               "anon_1, (SELECT meta.value FROM meta WHERE meta.name = 'feed_floor') AS "
               "anon_2, (SELECT meta.value FROM meta WHERE meta.name = 'last_number') AS "
               "anon_3, (SELECT meta.value FROM meta WHERE meta.name = 'stamp.role') AS "
               'anon_4, (SELECT max(feed.number) AS max_1 FROM feed) AS anon_5, NULL FROM '
               'tasks WHERE tasks.task_id = :task_id',
 'put_task': 'INSERT INTO tasks (task_id, description, recorded_status, created_at, priority, '
             'workspace, workspace_base, client_cwd, current_phase_index, max_agents, '
             'max_concurrent, max_depth, context, extra, lineage, revision, updated_at, '
             'status, phases, agents, active_agents, feed_floor, expired_before, chain) VALUES '
             '(:task_id, :description, :recorded_status, :created_at, :priority, :workspace, '
             ':workspace_base, :client_cwd, :current_phase_index, :max_agents, '
             ':max_concurrent, :max_depth, :context, :extra, :lineage, :revision, :updated_at, '
             ':status, :phases, :agents, :active_agents, :feed_floor, :expired_before, :chain) '
             'ON CONFLICT (task_id) DO UPDATE SET description = excluded.description, '
             'recorded_status = excluded.recorded_status, created_at = excluded.created_at, '
             'priority = excluded.priority, workspace = excluded.workspace, workspace_base = '
             'excluded.workspace_base, client_cwd = excluded.client_cwd, current_phase_index = '
             'excluded.current_phase_index, max_agents = excluded.max_agents, max_concurrent = '
             'excluded.max_concurrent, max_depth = excluded.max_depth, context = '
             'excluded.context, extra = excluded.extra, lineage = excluded.lineage, revision = '
             'excluded.revision, updated_at = excluded.updated_at, status = excluded.status, '
             'phases = excluded.phases, agents = excluded.agents, active_agents = '
             'excluded.active_agents, feed_floor = excluded.feed_floor, expired_before = '
             'excluded.expired_before, chain = excluded.chain',
 'set_task': 'UPDATE tasks SET description=:description, recorded_status=:recorded_status, '
             'created_at=:created_at, priority=:priority, workspace=:workspace, '
             'workspace_base=:workspace_base, client_cwd=:client_cwd, '
             'current_phase_index=:current_phase_index, max_agents=:max_agents, '
             'max_concurrent=:max_concurrent, max_depth=:max_depth, context=:context, '
             'extra=:extra WHERE tasks.task_id = :of_task',
 'advance': 'UPDATE tasks SET revision=:revision, updated_at=:updated_at, status=:status, '
            'phases=:phases, agents=:agents, active_agents=:active_agents, chain=:chain WHERE '
            'tasks.task_id = :of_task',
 'advance_alone': 'UPDATE tasks SET revision=:revision, updated_at=:updated_at, chain=:chain '
                  'WHERE tasks.task_id = :of_task',
 'set_expired': 'UPDATE tasks SET feed_floor=:feed_floor, expired_before=:expired_before WHERE '
                'tasks.task_id = :of_task',
 'oldest_changes': 'SELECT feed.number, feed.changeset_id, feed.at FROM feed WHERE '
                   'feed.task_id = :task_id ORDER BY feed.number LIMIT :limit OFFSET 0',
 'feed_ages': 'SELECT feed.number, feed.task_id, feed.changeset_id, feed.at, EXISTS (SELECT '
              'later.number FROM feed AS later WHERE later.task_id = feed.task_id AND '
              'later.number > feed.number) AS anon_1 FROM feed WHERE feed.number > :number '
              'ORDER BY feed.number LIMIT :limit OFFSET 0',
 'drop_latest': 'DELETE FROM agent_progress_latest WHERE agent_progress_latest.task_id = '
                ':task_id',
 'load_task_row': 'SELECT tasks.task_id, tasks.description, tasks.recorded_status, '
                  'tasks.created_at, tasks.priority, tasks.workspace, tasks.workspace_base, '
                  'tasks.client_cwd, tasks.current_phase_index, tasks.max_agents, '
                  'tasks.max_concurrent, tasks.max_depth, tasks.context, tasks.extra, '
                  'tasks.lineage, tasks.revision, tasks.updated_at, tasks.chain FROM tasks '
                  'WHERE tasks.task_id = :task_id',
 'agent_statuses': 'SELECT DISTINCT agents.status FROM agents WHERE agents.task_id = :task_id',
 'count_agent_statuses': 'SELECT agents.status, count(*) AS count_1 FROM agents WHERE '
                         'agents.task_id = :task_id GROUP BY agents.status',
 'phase_statuses': 'SELECT DISTINCT phases.status FROM phases WHERE phases.task_id = :task_id',
 'agent_status': 'SELECT agents.status, agents.last_update FROM agents WHERE agents.task_id = '
                 ':task_id AND agents.agent_id = :agent_id',
 'report_on_agent': 'UPDATE agents SET status=:status, progress=:progress, '
                    'last_update=:last_update WHERE agents.task_id = :of_task AND '
                    'agents.agent_id = :of_agent',
 'report_again': 'UPDATE agents SET progress=:progress, last_update=:last_update WHERE '
                 'agents.task_id = :of_task AND agents.agent_id = :of_agent AND agents.status '
                 '= :of_status',
 'seen_agent': 'UPDATE agents SET last_update=:last_update WHERE agents.task_id = :of_task AND '
               'agents.agent_id = :of_agent',
 'put_latest': 'INSERT INTO agent_progress_latest (task_id, entry_id, agent_id, timestamp, '
               'status, message, progress, "foreign", extra) VALUES (:task_id, :entry_id, '
               ':agent_id, :timestamp, :status, :message, :progress, :foreign, :extra) ON '
               'CONFLICT (task_id, agent_id) DO UPDATE SET entry_id = excluded.entry_id, '
               'timestamp = excluded.timestamp, status = excluded.status, message = '
               'excluded.message, progress = excluded.progress, "foreign" = '
               'excluded."foreign", extra = excluded.extra',
 'load_agent': 'SELECT agents.task_id, agents.agent_id, agents.type, agents.model, '
               'agents.status, agents.progress, agents.phase_index, agents.parent, '
               'agents.depth, agents.started_at, agents.completed_at, agents.last_update, '
               'agents.tmux_session, agents.pid, agents.review_id, agents.final_verdict, '
               'agents.prompt, agents.extra FROM agents WHERE agents.task_id = :task_id AND '
               'agents.agent_id = :agent_id',
 'load_latest_of': 'SELECT agent_progress_latest.task_id, agent_progress_latest.entry_id, '
                   'agent_progress_latest.agent_id, agent_progress_latest.timestamp, '
                   'agent_progress_latest.status, agent_progress_latest.message, '
                   'agent_progress_latest.progress, agent_progress_latest."foreign", '
                   'agent_progress_latest.extra FROM agent_progress_latest WHERE '
                   'agent_progress_latest.task_id = :task_id AND '
                   'agent_progress_latest.agent_id = :agent_id',
 'load_latest': 'SELECT agent_progress_latest.task_id, agent_progress_latest.entry_id, '
                'agent_progress_latest.agent_id, agent_progress_latest.timestamp, '
                'agent_progress_latest.status, agent_progress_latest.message, '
                'agent_progress_latest.progress, agent_progress_latest."foreign", '
                'agent_progress_latest.extra FROM agent_progress_latest WHERE '
                'agent_progress_latest.task_id = :task_id ORDER BY '
                'agent_progress_latest.agent_id',
 'replayed': 'SELECT feed.number, feed.lineage, feed.revision, feed.digest, feed.chain FROM '
             'feed WHERE feed.task_id = :task_id AND feed.changeset_id = :changeset_id',
 'feed_state': "SELECT (SELECT meta.value FROM meta WHERE meta.name = 'feed_id') AS anon_1, "
               "(SELECT meta.value FROM meta WHERE meta.name = 'feed_floor') AS anon_2, "
               "(SELECT meta.value FROM meta WHERE meta.name = 'last_number') AS anon_3, "
               "(SELECT meta.value FROM meta WHERE meta.name = 'stamp.role') AS anon_4, "
               '(SELECT max(feed.number) AS max_1 FROM feed) AS anon_5, NULL',
 'task_floor': 'SELECT tasks.feed_floor FROM tasks WHERE tasks.task_id = :task_id',
 'add_change': 'INSERT INTO feed (number, task_id, lineage, revision, changeset_id, digest, '
               'at, changeset, chain) VALUES (:number, :task_id, :lineage, :revision, '
               ':changeset_id, :digest, :at, :changeset, :chain) ON CONFLICT (task_id, '
               'changeset_id) DO NOTHING',
 'changes': 'SELECT feed.number, feed.lineage, feed.revision, feed.digest, feed.chain, '
            'feed.changeset FROM feed WHERE feed.number > :number ORDER BY feed.number LIMIT '
            ':limit OFFSET 0',
 'task_changes': 'SELECT feed.number, feed.lineage, feed.revision, feed.digest, feed.chain, '
                 'feed.changeset FROM feed WHERE feed.task_id = :task_id AND feed.number > '
                 ':number ORDER BY feed.number LIMIT :limit OFFSET 0',
 'drop_changes': 'DELETE FROM feed WHERE feed.task_id = :task_id AND feed.number <= :number',
 'drop_whole_feed': 'DELETE FROM feed',
 'drop_feed': 'DELETE FROM feed WHERE feed.task_id = :task_id',
 'feed_length': 'SELECT count(*) AS count_1 FROM feed WHERE feed.task_id = :task_id',
 'count': 'INSERT INTO counters (kind, status, n) VALUES (:kind, :status, :n) ON CONFLICT '
          '(kind, status) DO UPDATE SET n = (counters.n + :n)',
 'counts': 'SELECT counters.kind, counters.status, counters.n FROM counters WHERE counters.n '
           '!= 0',
 'read_meta': 'SELECT meta.value FROM meta WHERE meta.name = :name',
 'write_meta': 'INSERT INTO meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO '
               'UPDATE SET value = excluded.value',
 'raise_meta': 'INSERT INTO meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO '
               'UPDATE SET value = CAST(max(CAST(meta.value AS BIGINT), CAST(excluded.value AS '
               'BIGINT)) AS TEXT)',
 'drop_all_tasks': 'DELETE FROM tasks WHERE tasks.task_id = :task_id',
 'load_tasks': 'SELECT tasks.task_id, tasks.description, tasks.recorded_status, '
               'tasks.created_at, tasks.priority, tasks.workspace, tasks.workspace_base, '
               'tasks.client_cwd, tasks.current_phase_index, tasks.max_agents, '
               'tasks.max_concurrent, tasks.max_depth, tasks.context, tasks.extra FROM tasks '
               'WHERE tasks.task_id = :task_id ORDER BY tasks.task_id',
 'drop_all_phases': 'DELETE FROM phases WHERE phases.task_id = :task_id',
 'load_phases': 'SELECT phases.task_id, phases.phase_index, phases.phase_id, phases.name, '
                'phases.description, phases.status, phases.created_at, phases.started_at, '
                'phases.completed_at, phases.revision_round, phases.max_revision_rounds, '
                'phases.revision_ready, phases.active_review_id, phases.extra FROM phases '
                'WHERE phases.task_id = :task_id ORDER BY phases.phase_index',
 'has_phases': 'SELECT phases.phase_index FROM phases WHERE phases.task_id = :task_id AND '
               'phases.phase_index = :phase_index',
 'drop_phases': 'DELETE FROM phases WHERE phases.task_id = :task_id AND phases.phase_index = '
                ':phase_index',
 'count_phases': 'SELECT count(*) AS count_1 FROM phases WHERE phases.task_id = :task_id',
 'put_phases': 'INSERT INTO phases (task_id, phase_index, phase_id, name, description, status, '
               'created_at, started_at, completed_at, revision_round, max_revision_rounds, '
               'revision_ready, active_review_id, extra) VALUES (:task_id, :phase_index, '
               ':phase_id, :name, :description, :status, :created_at, :started_at, '
               ':completed_at, :revision_round, :max_revision_rounds, :revision_ready, '
               ':active_review_id, :extra) ON CONFLICT (task_id, phase_index) DO UPDATE SET '
               'phase_id = excluded.phase_id, name = excluded.name, description = '
               'excluded.description, status = excluded.status, created_at = '
               'excluded.created_at, started_at = excluded.started_at, completed_at = '
               'excluded.completed_at, revision_round = excluded.revision_round, '
               'max_revision_rounds = excluded.max_revision_rounds, revision_ready = '
               'excluded.revision_ready, active_review_id = excluded.active_review_id, extra = '
               'excluded.extra',
 'drop_all_agents': 'DELETE FROM agents WHERE agents.task_id = :task_id',
 'load_agents': 'SELECT agents.task_id, agents.agent_id, agents.type, agents.model, '
                'agents.status, agents.progress, agents.phase_index, agents.parent, '
                'agents.depth, agents.started_at, agents.completed_at, agents.last_update, '
                'agents.tmux_session, agents.pid, agents.review_id, agents.final_verdict, '
                'agents.prompt, agents.extra FROM agents WHERE agents.task_id = :task_id ORDER '
                'BY agents.agent_id',
 'has_agents': 'SELECT agents.agent_id FROM agents WHERE agents.task_id = :task_id AND '
               'agents.agent_id = :agent_id',
 'drop_agents': 'DELETE FROM agents WHERE agents.task_id = :task_id AND agents.agent_id = '
                ':agent_id',
 'count_agents': 'SELECT count(*) AS count_1 FROM agents WHERE agents.task_id = :task_id',
 'put_agents': 'INSERT INTO agents (task_id, agent_id, type, model, status, progress, '
               'phase_index, parent, depth, started_at, completed_at, last_update, '
               'tmux_session, pid, review_id, final_verdict, prompt, extra, active) VALUES '
               '(:task_id, :agent_id, :type, :model, :status, :progress, :phase_index, '
               ':parent, :depth, :started_at, :completed_at, :last_update, :tmux_session, '
               ':pid, :review_id, :final_verdict, :prompt, :extra, :active) ON CONFLICT '
               '(task_id, agent_id) DO UPDATE SET type = excluded.type, model = '
               'excluded.model, status = excluded.status, progress = excluded.progress, '
               'phase_index = excluded.phase_index, parent = excluded.parent, depth = '
               'excluded.depth, started_at = excluded.started_at, completed_at = '
               'excluded.completed_at, last_update = excluded.last_update, tmux_session = '
               'excluded.tmux_session, pid = excluded.pid, review_id = excluded.review_id, '
               'final_verdict = excluded.final_verdict, prompt = excluded.prompt, extra = '
               'excluded.extra, active = excluded.active',
 'drop_all_progress': 'DELETE FROM progress WHERE progress.task_id = :task_id',
 'load_progress': 'SELECT progress.task_id, progress.entry_id, progress.agent_id, '
                  'progress.timestamp, progress.status, progress.message, progress.progress, '
                  'progress."foreign", progress.extra FROM progress WHERE progress.task_id = '
                  ':task_id ORDER BY progress.entry_id',
 'has_progress': 'SELECT progress.entry_id FROM progress WHERE progress.task_id = :task_id AND '
                 'progress.entry_id = :entry_id',
 'drop_progress': 'DELETE FROM progress WHERE progress.task_id = :task_id AND '
                  'progress.entry_id = :entry_id',
 'count_progress': 'SELECT count(*) AS count_1 FROM progress WHERE progress.task_id = :task_id',
 'one_progress': 'SELECT progress.task_id, progress.entry_id, progress.agent_id, '
                 'progress.timestamp, progress.status, progress.message, progress.progress, '
                 'progress."foreign", progress.extra FROM progress WHERE progress.task_id = '
                 ':task_id AND progress.entry_id = :entry_id',
 'add_progress': 'INSERT INTO progress (task_id, entry_id, agent_id, timestamp, status, '
                 'message, progress, "foreign", extra) VALUES (:task_id, :entry_id, :agent_id, '
                 ':timestamp, :status, :message, :progress, :foreign, :extra) ON CONFLICT '
                 '(task_id, entry_id) DO NOTHING',
 'drop_all_findings': 'DELETE FROM findings WHERE findings.task_id = :task_id',
 'load_findings': 'SELECT findings.task_id, findings.finding_id, findings.agent_id, '
                  'findings.timestamp, findings.finding_type, findings.severity, '
                  'findings.message, findings.data, findings.phase_index, findings."foreign", '
                  'findings.extra FROM findings WHERE findings.task_id = :task_id ORDER BY '
                  'findings.finding_id',
 'has_findings': 'SELECT findings.finding_id FROM findings WHERE findings.task_id = :task_id '
                 'AND findings.finding_id = :finding_id',
 'drop_findings': 'DELETE FROM findings WHERE findings.task_id = :task_id AND '
                  'findings.finding_id = :finding_id',
 'count_findings': 'SELECT count(*) AS count_1 FROM findings WHERE findings.task_id = :task_id',
 'one_findings': 'SELECT findings.task_id, findings.finding_id, findings.agent_id, '
                 'findings.timestamp, findings.finding_type, findings.severity, '
                 'findings.message, findings.data, findings.phase_index, findings."foreign", '
                 'findings.extra FROM findings WHERE findings.task_id = :task_id AND '
                 'findings.finding_id = :finding_id',
 'add_findings': 'INSERT INTO findings (task_id, finding_id, agent_id, timestamp, '
                 'finding_type, severity, message, data, phase_index, "foreign", extra) VALUES '
                 '(:task_id, :finding_id, :agent_id, :timestamp, :finding_type, :severity, '
                 ':message, :data, :phase_index, :foreign, :extra) ON CONFLICT (task_id, '
                 'finding_id) DO NOTHING',
 'drop_all_reviews': 'DELETE FROM reviews WHERE reviews.task_id = :task_id',
 'load_reviews': 'SELECT reviews.task_id, reviews.review_id, reviews.phase_index, '
                 'reviews.phase_id, reviews.status, reviews.verdict, reviews.num_reviewers, '
                 'reviews.reviewers, reviews.created_at, reviews.completed_at, reviews.notes, '
                 'reviews.extra FROM reviews WHERE reviews.task_id = :task_id ORDER BY '
                 'reviews.review_id',
 'has_reviews': 'SELECT reviews.review_id FROM reviews WHERE reviews.task_id = :task_id AND '
                'reviews.review_id = :review_id',
 'drop_reviews': 'DELETE FROM reviews WHERE reviews.task_id = :task_id AND reviews.review_id = '
                 ':review_id',
 'count_reviews': 'SELECT count(*) AS count_1 FROM reviews WHERE reviews.task_id = :task_id',
 'put_reviews': 'INSERT INTO reviews (task_id, review_id, phase_index, phase_id, status, '
                'verdict, num_reviewers, reviewers, created_at, completed_at, notes, extra) '
                'VALUES (:task_id, :review_id, :phase_index, :phase_id, :status, :verdict, '
                ':num_reviewers, :reviewers, :created_at, :completed_at, :notes, :extra) ON '
                'CONFLICT (task_id, review_id) DO UPDATE SET phase_index = '
                'excluded.phase_index, phase_id = excluded.phase_id, status = excluded.status, '
                'verdict = excluded.verdict, num_reviewers = excluded.num_reviewers, reviewers '
                '= excluded.reviewers, created_at = excluded.created_at, completed_at = '
                'excluded.completed_at, notes = excluded.notes, extra = excluded.extra',
 'drop_all_verdicts': 'DELETE FROM verdicts WHERE verdicts.task_id = :task_id',
 'load_verdicts': 'SELECT verdicts.task_id, verdicts.verdict_id, verdicts.review_id, '
                  'verdicts.reviewer_id, verdicts.verdict, verdicts.findings, verdicts.notes, '
                  'verdicts.submitted_at, verdicts.extra FROM verdicts WHERE verdicts.task_id '
                  '= :task_id ORDER BY verdicts.verdict_id',
 'has_verdicts': 'SELECT verdicts.verdict_id FROM verdicts WHERE verdicts.task_id = :task_id '
                 'AND verdicts.verdict_id = :verdict_id',
 'drop_verdicts': 'DELETE FROM verdicts WHERE verdicts.task_id = :task_id AND '
                  'verdicts.verdict_id = :verdict_id',
 'count_verdicts': 'SELECT count(*) AS count_1 FROM verdicts WHERE verdicts.task_id = :task_id',
 'put_verdicts': 'INSERT INTO verdicts (task_id, verdict_id, review_id, reviewer_id, verdict, '
                 'findings, notes, submitted_at, extra) VALUES (:task_id, :verdict_id, '
                 ':review_id, :reviewer_id, :verdict, :findings, :notes, :submitted_at, '
                 ':extra) ON CONFLICT (task_id, verdict_id) DO UPDATE SET review_id = '
                 'excluded.review_id, reviewer_id = excluded.reviewer_id, verdict = '
                 'excluded.verdict, findings = excluded.findings, notes = excluded.notes, '
                 'submitted_at = excluded.submitted_at, extra = excluded.extra',
 'drop_all_handovers': 'DELETE FROM handovers WHERE handovers.task_id = :task_id',
 'load_handovers': 'SELECT handovers.task_id, handovers.handover_id, '
                   'handovers.from_phase_index, handovers.to_phase_index, handovers.summary, '
                   'handovers.key_findings, handovers.blockers, handovers.recommendations, '
                   'handovers.artifacts, handovers.created_at, handovers.extra FROM handovers '
                   'WHERE handovers.task_id = :task_id ORDER BY handovers.handover_id',
 'has_handovers': 'SELECT handovers.handover_id FROM handovers WHERE handovers.task_id = '
                  ':task_id AND handovers.handover_id = :handover_id',
 'drop_handovers': 'DELETE FROM handovers WHERE handovers.task_id = :task_id AND '
                   'handovers.handover_id = :handover_id',
 'count_handovers': 'SELECT count(*) AS count_1 FROM handovers WHERE handovers.task_id = '
                    ':task_id',
 'put_handovers': 'INSERT INTO handovers (task_id, handover_id, from_phase_index, '
                  'to_phase_index, summary, key_findings, blockers, recommendations, '
                  'artifacts, created_at, extra) VALUES (:task_id, :handover_id, '
                  ':from_phase_index, :to_phase_index, :summary, :key_findings, :blockers, '
                  ':recommendations, :artifacts, :created_at, :extra) ON CONFLICT (task_id, '
                  'handover_id) DO UPDATE SET from_phase_index = excluded.from_phase_index, '
                  'to_phase_index = excluded.to_phase_index, summary = excluded.summary, '
                  'key_findings = excluded.key_findings, blockers = excluded.blockers, '
                  'recommendations = excluded.recommendations, artifacts = excluded.artifacts, '
                  'created_at = excluded.created_at, extra = excluded.extra'}

FRAGMENTS: dict[str, dict[str, Any]] = {'task': {'select': 'SELECT tasks.task_id, tasks.description, tasks.status, '
                    'tasks.recorded_status, tasks.priority, tasks.created_at, '
                    'tasks.updated_at, tasks.revision, tasks.phases, '
                    'tasks.current_phase_index, tasks.agents, tasks.active_agents FROM tasks',
          'limit': 'LIMIT :limit',
          'order': {'oldest': 'tasks.created_at, tasks.task_id',
                    'newest': 'tasks.created_at DESC, tasks.task_id DESC'},
          'after': {'oldest': '(tasks.created_at, tasks.task_id) > (:after_0, :after_1)',
                    'newest': '(tasks.created_at, tasks.task_id) < (:after_0, :after_1)',
                    'oldest_in_task': '(tasks.created_at) > (:after_0)',
                    'newest_in_task': '(tasks.created_at) < (:after_0)'},
          'where': {'status': 'tasks.status = :status',
                    'since': 'tasks.created_at >= :since',
                    'until': 'tasks.created_at < :until',
                    'text': 'instr(tasks.description, :text) > 0 OR instr(tasks.task_id, '
                            ':text) > 0'}},
 'phase': {'select': 'SELECT phases.task_id, phases.phase_index, phases.phase_id, phases.name, '
                     'phases.description, phases.status, phases.created_at, phases.started_at, '
                     'phases.completed_at, phases.revision_round, phases.max_revision_rounds, '
                     'phases.revision_ready, phases.active_review_id, phases.extra FROM phases',
           'limit': 'LIMIT :limit',
           'order': {'oldest': 'phases.phase_index, phases.task_id',
                     'newest': 'phases.phase_index DESC, phases.task_id DESC'},
           'after': {'oldest': '(phases.phase_index, phases.task_id) > (:after_0, :after_1)',
                     'newest': '(phases.phase_index, phases.task_id) < (:after_0, :after_1)',
                     'oldest_in_task': '(phases.phase_index) > (:after_0)',
                     'newest_in_task': '(phases.phase_index) < (:after_0)'},
           'where': {'task_id': 'phases.task_id = :task_id',
                     'since': 'phases.started_at >= :since',
                     'text': 'instr(phases.name, :text) > 0 OR instr(phases.description, '
                             ':text) > 0',
                     'phase_index': 'phases.phase_index = :phase_index',
                     'status': 'phases.status = :status'}},
 'agent': {'select': 'SELECT agents.task_id, agents.agent_id, agents.type, agents.model, '
                     'agents.status, agents.progress, agents.phase_index, agents.parent, '
                     'agents.depth, agents.started_at, agents.completed_at, '
                     'agents.last_update, agents.tmux_session, agents.pid, agents.review_id, '
                     'agents.final_verdict, agents.prompt, agents.extra FROM agents',
           'limit': 'LIMIT :limit',
           'order': {'oldest': 'agents.agent_id, agents.task_id',
                     'newest': 'agents.agent_id DESC, agents.task_id DESC'},
           'after': {'oldest': '(agents.agent_id, agents.task_id) > (:after_0, :after_1)',
                     'newest': '(agents.agent_id, agents.task_id) < (:after_0, :after_1)',
                     'oldest_in_task': '(agents.agent_id) > (:after_0)',
                     'newest_in_task': '(agents.agent_id) < (:after_0)'},
           'where': {'task_id': 'agents.task_id = :task_id',
                     'since': 'agents.last_update >= :since',
                     'text': 'instr(agents.type, :text) > 0 OR instr(agents.prompt, :text) > 0',
                     'agent_id': 'agents.agent_id = :agent_id',
                     'phase_index': 'agents.phase_index = :phase_index',
                     'status': 'agents.status = :status',
                     'active': 'agents.active = :active'}},
 'progress': {'select': 'SELECT progress.task_id, progress.entry_id, progress.agent_id, '
                        'progress.timestamp, progress.status, progress.message, '
                        'progress.progress, progress."foreign", progress.extra FROM progress',
              'limit': 'LIMIT :limit',
              'order': {'oldest': 'progress.timestamp, progress.task_id, progress.entry_id',
                        'newest': 'progress.timestamp DESC, progress.task_id DESC, '
                                  'progress.entry_id DESC'},
              'after': {'oldest': '(progress.timestamp, progress.task_id, progress.entry_id) > '
                                  '(:after_0, :after_1, :after_2)',
                        'newest': '(progress.timestamp, progress.task_id, progress.entry_id) < '
                                  '(:after_0, :after_1, :after_2)',
                        'oldest_in_task': '(progress.timestamp, progress.entry_id) > '
                                          '(:after_0, :after_2)',
                        'newest_in_task': '(progress.timestamp, progress.entry_id) < '
                                          '(:after_0, :after_2)'},
              'where': {'task_id': 'progress.task_id = :task_id',
                        'since': 'progress.timestamp >= :since',
                        'text': 'instr(progress.message, :text) > 0',
                        'agent_id': 'progress.agent_id = :agent_id'}},
 'finding': {'select': 'SELECT findings.task_id, findings.finding_id, findings.agent_id, '
                       'findings.timestamp, findings.finding_type, findings.severity, '
                       'findings.message, findings.data, findings.phase_index, '
                       'findings."foreign", findings.extra FROM findings',
             'limit': 'LIMIT :limit',
             'order': {'oldest': 'findings.timestamp, findings.task_id, findings.finding_id',
                       'newest': 'findings.timestamp DESC, findings.task_id DESC, '
                                 'findings.finding_id DESC'},
             'after': {'oldest': '(findings.timestamp, findings.task_id, findings.finding_id) '
                                 '> (:after_0, :after_1, :after_2)',
                       'newest': '(findings.timestamp, findings.task_id, findings.finding_id) '
                                 '< (:after_0, :after_1, :after_2)',
                       'oldest_in_task': '(findings.timestamp, findings.finding_id) > '
                                         '(:after_0, :after_2)',
                       'newest_in_task': '(findings.timestamp, findings.finding_id) < '
                                         '(:after_0, :after_2)'},
             'where': {'task_id': 'findings.task_id = :task_id',
                       'since': 'findings.timestamp >= :since',
                       'text': 'instr(findings.message, :text) > 0',
                       'agent_id': 'findings.agent_id = :agent_id',
                       'phase_index': 'findings.phase_index = :phase_index',
                       'severity': 'findings.severity = :severity'}},
 'review': {'select': 'SELECT reviews.task_id, reviews.review_id, reviews.phase_index, '
                      'reviews.phase_id, reviews.status, reviews.verdict, '
                      'reviews.num_reviewers, reviews.reviewers, reviews.created_at, '
                      'reviews.completed_at, reviews.notes, reviews.extra FROM reviews',
            'limit': 'LIMIT :limit',
            'order': {'oldest': 'reviews.created_at, reviews.task_id, reviews.review_id',
                      'newest': 'reviews.created_at DESC, reviews.task_id DESC, '
                                'reviews.review_id DESC'},
            'after': {'oldest': '(reviews.created_at, reviews.task_id, reviews.review_id) > '
                                '(:after_0, :after_1, :after_2)',
                      'newest': '(reviews.created_at, reviews.task_id, reviews.review_id) < '
                                '(:after_0, :after_1, :after_2)',
                      'oldest_in_task': '(reviews.created_at, reviews.review_id) > (:after_0, '
                                        ':after_2)',
                      'newest_in_task': '(reviews.created_at, reviews.review_id) < (:after_0, '
                                        ':after_2)'},
            'where': {'task_id': 'reviews.task_id = :task_id',
                      'since': 'reviews.created_at >= :since',
                      'text': 'instr(reviews.notes, :text) > 0',
                      'phase_index': 'reviews.phase_index = :phase_index',
                      'status': 'reviews.status = :status'}},
 'verdict': {'select': 'SELECT verdicts.task_id, verdicts.verdict_id, verdicts.review_id, '
                       'verdicts.reviewer_id, verdicts.verdict, verdicts.findings, '
                       'verdicts.notes, verdicts.submitted_at, verdicts.extra FROM verdicts',
             'limit': 'LIMIT :limit',
             'order': {'oldest': 'verdicts.submitted_at, verdicts.task_id, verdicts.verdict_id',
                       'newest': 'verdicts.submitted_at DESC, verdicts.task_id DESC, '
                                 'verdicts.verdict_id DESC'},
             'after': {'oldest': '(verdicts.submitted_at, verdicts.task_id, '
                                 'verdicts.verdict_id) > (:after_0, :after_1, :after_2)',
                       'newest': '(verdicts.submitted_at, verdicts.task_id, '
                                 'verdicts.verdict_id) < (:after_0, :after_1, :after_2)',
                       'oldest_in_task': '(verdicts.submitted_at, verdicts.verdict_id) > '
                                         '(:after_0, :after_2)',
                       'newest_in_task': '(verdicts.submitted_at, verdicts.verdict_id) < '
                                         '(:after_0, :after_2)'},
             'where': {'task_id': 'verdicts.task_id = :task_id',
                       'since': 'verdicts.submitted_at >= :since',
                       'text': 'instr(verdicts.notes, :text) > 0',
                       'agent_id': 'verdicts.reviewer_id = :agent_id'}},
 'handover': {'select': 'SELECT handovers.task_id, handovers.handover_id, '
                        'handovers.from_phase_index, handovers.to_phase_index, '
                        'handovers.summary, handovers.key_findings, handovers.blockers, '
                        'handovers.recommendations, handovers.artifacts, handovers.created_at, '
                        'handovers.extra FROM handovers',
              'limit': 'LIMIT :limit',
              'order': {'oldest': 'handovers.created_at, handovers.task_id, '
                                  'handovers.handover_id',
                        'newest': 'handovers.created_at DESC, handovers.task_id DESC, '
                                  'handovers.handover_id DESC'},
              'after': {'oldest': '(handovers.created_at, handovers.task_id, '
                                  'handovers.handover_id) > (:after_0, :after_1, :after_2)',
                        'newest': '(handovers.created_at, handovers.task_id, '
                                  'handovers.handover_id) < (:after_0, :after_1, :after_2)',
                        'oldest_in_task': '(handovers.created_at, handovers.handover_id) > '
                                          '(:after_0, :after_2)',
                        'newest_in_task': '(handovers.created_at, handovers.handover_id) < '
                                          '(:after_0, :after_2)'},
              'where': {'task_id': 'handovers.task_id = :task_id',
                        'since': 'handovers.created_at >= :since',
                        'text': 'instr(handovers.summary, :text) > 0',
                        'phase_index': 'handovers.from_phase_index = :phase_index'}}}

DDL: list[str] = ['CREATE TABLE agent_progress_latest ( task_id TEXT NOT NULL, entry_id TEXT NOT NULL, agent_id '
 'TEXT NOT NULL, timestamp TEXT NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL, '
 'progress BIGINT NOT NULL, "foreign" BIGINT NOT NULL, extra TEXT NOT NULL, PRIMARY KEY '
 '(task_id, agent_id) ) WITHOUT ROWID',
 'CREATE TABLE agents ( task_id TEXT NOT NULL, agent_id TEXT NOT NULL, type TEXT NOT NULL, '
 'model TEXT, status TEXT NOT NULL, progress BIGINT NOT NULL, phase_index BIGINT, parent TEXT, '
 'depth BIGINT, started_at TEXT, completed_at TEXT, last_update TEXT, tmux_session TEXT, pid '
 'BIGINT, review_id TEXT, final_verdict TEXT, prompt TEXT NOT NULL, extra TEXT NOT NULL, '
 'active BIGINT NOT NULL, PRIMARY KEY (task_id, agent_id) ) WITHOUT ROWID',
 'CREATE INDEX idx_agents_active ON agents (active, agent_id, task_id)',
 'CREATE INDEX idx_agents_order ON agents (agent_id, task_id)',
 'CREATE INDEX idx_agents_status ON agents (status, agent_id, task_id)',
 'CREATE INDEX idx_agents_task_phase ON agents (task_id, phase_index)',
 'CREATE INDEX idx_agents_task_status ON agents (task_id, status)',
 'CREATE TABLE counters ( kind TEXT NOT NULL, status TEXT NOT NULL, n BIGINT NOT NULL, PRIMARY '
 'KEY (kind, status) ) WITHOUT ROWID',
 'CREATE TABLE feed ( number INTEGER NOT NULL, task_id TEXT NOT NULL, lineage TEXT NOT NULL, '
 'revision BIGINT NOT NULL, changeset_id TEXT NOT NULL, digest TEXT NOT NULL, at TEXT NOT '
 "NULL, changeset TEXT NOT NULL, chain TEXT DEFAULT '' NOT NULL, PRIMARY KEY (number), UNIQUE "
 '(task_id, changeset_id) )',
 'CREATE INDEX idx_feed_task ON feed (task_id, number)',
 'CREATE TABLE findings ( task_id TEXT NOT NULL, finding_id TEXT NOT NULL, agent_id TEXT NOT '
 'NULL, timestamp TEXT NOT NULL, finding_type TEXT NOT NULL, severity TEXT NOT NULL, message '
 'TEXT NOT NULL, data TEXT NOT NULL, phase_index BIGINT, "foreign" BIGINT NOT NULL, extra TEXT '
 'NOT NULL, PRIMARY KEY (task_id, finding_id) ) WITHOUT ROWID',
 'CREATE INDEX idx_findings_agent ON findings (task_id, agent_id, timestamp, finding_id)',
 'CREATE INDEX idx_findings_order ON findings (timestamp, task_id, finding_id)',
 'CREATE INDEX idx_findings_severity ON findings (severity, timestamp, task_id, finding_id)',
 'CREATE INDEX idx_findings_task ON findings (task_id, timestamp, finding_id)',
 'CREATE TABLE handovers ( task_id TEXT NOT NULL, handover_id TEXT NOT NULL, from_phase_index '
 'BIGINT, to_phase_index BIGINT, summary TEXT NOT NULL, key_findings TEXT NOT NULL, blockers '
 'TEXT NOT NULL, recommendations TEXT NOT NULL, artifacts TEXT NOT NULL, created_at TEXT NOT '
 'NULL, extra TEXT NOT NULL, PRIMARY KEY (task_id, handover_id) ) WITHOUT ROWID',
 'CREATE INDEX idx_handovers_order ON handovers (created_at, task_id, handover_id)',
 'CREATE TABLE meta ( name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name) ) WITHOUT '
 'ROWID',
 'CREATE TABLE phases ( task_id TEXT NOT NULL, phase_index BIGINT NOT NULL, phase_id TEXT NOT '
 'NULL, name TEXT NOT NULL, description TEXT NOT NULL, status TEXT NOT NULL, created_at TEXT, '
 'started_at TEXT, completed_at TEXT, revision_round BIGINT NOT NULL, max_revision_rounds '
 'BIGINT, revision_ready BIGINT NOT NULL, active_review_id TEXT, extra TEXT NOT NULL, PRIMARY '
 'KEY (task_id, phase_index) ) WITHOUT ROWID',
 'CREATE INDEX idx_phases_order ON phases (phase_index, task_id)',
 'CREATE INDEX idx_phases_status ON phases (status, phase_index, task_id)',
 'CREATE TABLE progress ( task_id TEXT NOT NULL, entry_id TEXT NOT NULL, agent_id TEXT NOT '
 'NULL, timestamp TEXT NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL, progress BIGINT '
 'NOT NULL, "foreign" BIGINT NOT NULL, extra TEXT NOT NULL, PRIMARY KEY (task_id, entry_id) ) '
 'WITHOUT ROWID',
 'CREATE INDEX idx_progress_agent ON progress (task_id, agent_id, timestamp, entry_id)',
 'CREATE INDEX idx_progress_order ON progress (timestamp, task_id, entry_id)',
 'CREATE INDEX idx_progress_task ON progress (task_id, timestamp, entry_id)',
 'CREATE TABLE reviews ( task_id TEXT NOT NULL, review_id TEXT NOT NULL, phase_index BIGINT, '
 'phase_id TEXT, status TEXT NOT NULL, verdict TEXT, num_reviewers BIGINT NOT NULL, reviewers '
 'TEXT NOT NULL, created_at TEXT NOT NULL, completed_at TEXT, notes TEXT NOT NULL, extra TEXT '
 'NOT NULL, PRIMARY KEY (task_id, review_id) ) WITHOUT ROWID',
 'CREATE INDEX idx_reviews_order ON reviews (created_at, task_id, review_id)',
 'CREATE INDEX idx_reviews_status ON reviews (status, created_at, task_id, review_id)',
 'CREATE TABLE tasks ( task_id TEXT NOT NULL, description TEXT NOT NULL, recorded_status TEXT '
 'NOT NULL, created_at TEXT NOT NULL, priority TEXT NOT NULL, workspace TEXT, workspace_base '
 'TEXT, client_cwd TEXT, current_phase_index BIGINT, max_agents BIGINT, max_concurrent BIGINT, '
 'max_depth BIGINT, context TEXT NOT NULL, extra TEXT NOT NULL, lineage TEXT NOT NULL, '
 'revision BIGINT NOT NULL, updated_at TEXT NOT NULL, status TEXT NOT NULL, phases BIGINT NOT '
 'NULL, agents BIGINT NOT NULL, active_agents BIGINT NOT NULL, feed_floor BIGINT NOT NULL, '
 "expired_before TEXT, chain TEXT DEFAULT '' NOT NULL, PRIMARY KEY (task_id) ) WITHOUT ROWID",
 'CREATE INDEX idx_tasks_created ON tasks (created_at, task_id)',
 'CREATE INDEX idx_tasks_status ON tasks (status, created_at, task_id)',
 'CREATE TABLE verdicts ( task_id TEXT NOT NULL, verdict_id TEXT NOT NULL, review_id TEXT NOT '
 'NULL, reviewer_id TEXT, verdict TEXT NOT NULL, findings TEXT NOT NULL, notes TEXT NOT NULL, '
 'submitted_at TEXT NOT NULL, extra TEXT NOT NULL, PRIMARY KEY (task_id, verdict_id) ) WITHOUT '
 'ROWID',
 'CREATE INDEX idx_verdicts_order ON verdicts (submitted_at, task_id, verdict_id)']
