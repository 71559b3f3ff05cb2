"""A report in one round trip: a function of the server that commits the most frequent changeset.

It does what ``SqlStore.commit`` does for a changeset with one progress entry, without ``expected``,
that leaves its agent's status as it is. For everything else it does nothing and returns no row:
then the changeset is committed as any other, and the rules there decide. A report that takes this
way costs one statement instead of eight.

Its name ends with the version of the schema that brought it, so that a program of an older version
does not find it after an upgrade, and commits reports as any other changeset.

Each statement of the function sees what was committed before it began: the first reading sees what
the wait for the locks has let through.
"""

from __future__ import annotations

__all__ = ["CALL", "CREATE", "EARLIER", "NOT_DONE"]

EARLIER = ("registry_report",)  # the names that the function had before
NOT_DONE = "RG001"  # SQLSTATE: it had written something when it found that it must not

CALL = """
SELECT * FROM registry_report_2(
  p_lock => %(lock)s::int, p_shard => %(shard)s::text, p_role => %(role)s::text,
  p_task_id => %(task_id)s::text, p_changeset_id => %(changeset_id)s::text,
  p_digest => %(digest)s::text, p_at => %(at)s::text, p_changeset => %(changeset)s::text,
  p_created => %(created)s::text, p_keep => %(keep)s::bigint, p_batch => %(batch)s::bigint,
  p_entry_id => %(entry_id)s::text, p_agent_id => %(agent_id)s::text,
  p_timestamp => %(timestamp)s::text, p_status => %(status)s::text, p_said => %(said)s::text,
  p_message => %(message)s::text, p_progress => %(progress)s::bigint, p_extra => %(extra)s::text
)
"""

CREATE = """
CREATE FUNCTION registry_report_2(
  p_lock int,            -- of the task
  p_shard text,          -- of the counters
  p_role text,           -- the role stamp that the caller has accepted
  p_task_id text,
  p_changeset_id text,
  p_digest text,
  p_at text,
  p_changeset text,
  p_created text,        -- the time in the changeset's id
  p_keep bigint,         -- lines of the feed that a task keeps at least
  p_batch bigint,        -- every so many revisions the oldest are dropped
  p_entry_id text,
  p_agent_id text,
  p_timestamp text,
  p_status text,
  p_said text,           -- the agent's status that the report means
  p_message text,
  p_progress bigint,
  p_extra text
)
RETURNS TABLE (r_lineage text, r_revision bigint, r_number bigint, r_feed_id text, r_chain text)
LANGUAGE plpgsql AS $$
DECLARE
  task record;
  feed_line bigint;
  link text;
BEGIN
  PERFORM pg_advisory_xact_lock_shared('meta'::regclass::oid::int, 0);
  PERFORM pg_advisory_xact_lock('meta'::regclass::oid::int, p_lock);
  SELECT tasks.lineage, tasks.revision + 1 AS revision, tasks.expired_before,
    CASE WHEN starts_with(tasks.chain, tasks.revision || '.') THEN tasks.chain ELSE '' END AS chain,
    (SELECT value FROM meta WHERE name = 'feed_id') AS feed_id,
    (SELECT value FROM meta WHERE name = 'stamp.role') AS role,
    (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM feed_number) AS drawn,
    greatest((SELECT value::bigint FROM meta WHERE name = 'last_number'),
      (SELECT max(number) FROM feed)) AS last_number,
    EXISTS (SELECT FROM agents WHERE agents.task_id = p_task_id AND agents.agent_id = p_agent_id
      AND agents.status = p_said) AS unchanged
  INTO task FROM tasks WHERE tasks.task_id = p_task_id;
  IF NOT FOUND OR NOT task.unchanged OR task.role IS DISTINCT FROM p_role
      OR task.drawn < task.last_number OR p_created <= task.expired_before
      OR (task.revision > p_keep AND task.revision % p_batch = 0) THEN
    RETURN;
  END IF;
  INSERT INTO progress (task_id, entry_id, agent_id, timestamp, status, message, progress,
      "foreign", extra)
    VALUES (p_task_id, p_entry_id, p_agent_id, p_timestamp, p_status, p_message, p_progress, 0,
      p_extra)
    ON CONFLICT (task_id, entry_id) DO NOTHING;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  link := encode(sha256(convert_to(task.chain || ' ' || p_digest, 'UTF8')), 'hex');
  link := task.revision || '.' || substr(link, 1, 32);
  INSERT INTO feed (number, task_id, lineage, revision, changeset_id, digest, at, changeset, chain)
    VALUES (nextval('feed_number'), p_task_id, task.lineage, task.revision, p_changeset_id,
      p_digest, p_at, p_changeset, link)
    ON CONFLICT (task_id, changeset_id) DO NOTHING RETURNING number INTO feed_line;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the changeset % is known', p_changeset_id USING ERRCODE = 'RG001';
  END IF;
  INSERT INTO agent_progress_latest (task_id, entry_id, agent_id, timestamp, status, message,
      progress, "foreign", extra)
    VALUES (p_task_id, p_entry_id, p_agent_id, p_timestamp, p_status, p_message, p_progress, 0,
      p_extra)
    ON CONFLICT (task_id, agent_id) DO UPDATE SET entry_id = excluded.entry_id,
      timestamp = excluded.timestamp, status = excluded.status, message = excluded.message,
      progress = excluded.progress, "foreign" = excluded."foreign", extra = excluded.extra;
  UPDATE agents SET progress = p_progress, last_update = p_timestamp
    WHERE agents.task_id = p_task_id AND agents.agent_id = p_agent_id;
  UPDATE tasks SET revision = task.revision, updated_at = p_at, chain = link
    WHERE tasks.task_id = p_task_id;
  INSERT INTO counters (kind, status, n) VALUES ('progress' || p_shard, '', 1)
    ON CONFLICT (kind, status) DO UPDATE SET n = counters.n + 1;
  RETURN QUERY SELECT task.lineage::text, task.revision::bigint, feed_line, task.feed_id::text,
    link;
END
$$
"""
