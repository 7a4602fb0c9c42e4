-- Questions people ask of support data, for DuckDB, over the views that `decagon-lake views` makes:
--   decagon-lake views --engine duckdb | duckdb support.duckdb
--   duckdb support.duckdb < queries.sql
-- Append _latest to a table's name to include the staged files, which are not compacted yet. Days are those of UTC. The
-- queries suit lakes by day and by month, because they name no partition. To leave out the conversations that
-- `decagon-lake reconcile --on-deleted mark` has marked, read conversations_current instead of conversations.
SET TimeZone = 'UTC';

-- The head of support: how many conversations does the AI resolve alone, day by day?
SELECT created_at::DATE AS day, count(*) AS conversations, round(avg((NOT undeflected)::INT), 3) AS deflection_rate
FROM conversations
GROUP BY day
ORDER BY day;

-- The product manager: what are people content with, and what not? CSAT by tag and week. A tag without a name shows its id.
SELECT tag, date_trunc('week', created_at)::DATE AS week, count(*) AS ratings, round(avg(csat_rating), 2) AS csat
FROM conversations
JOIN (SELECT DISTINCT conversation_id, coalesce(name, tag_id) AS tag FROM tags)
  USING (conversation_id)
WHERE csat_rating IS NOT NULL
GROUP BY tag, week
ORDER BY tag, week;

-- The team lead: which conversations go on and on?
SELECT conversation_id, created_at, user_id, message_count, last_message_at - created_at AS lasted, summary
FROM conversations
ORDER BY message_count DESC, conversation_id
LIMIT 10;

-- The operations manager: how often does the AI hand over to a human, week by week? A hand-over is a conversation whose
-- destination is not the AI, or in which somebody else than the user and the AI has written. (`undeflected` is wider: it
-- also counts conversations that were not resolved and never handed over.)
SELECT date_trunc('week', created_at)::DATE AS week, count(*) AS conversations,
  round(avg((coalesce(destination <> 'AI', false) OR people.conversation_id IS NOT NULL)::INT), 3) AS handover_rate
FROM conversations
LEFT JOIN (SELECT DISTINCT conversation_id FROM messages WHERE role NOT IN ('USER', 'AI')) people
  USING (conversation_id)
GROUP BY week
ORDER BY week;

-- The agent with a customer on the line: what has this user said before? Replace the subquery, which
-- picks the user with the most conversations, by the user's id.
SELECT conversations.created_at AS began, conversation_id, message_index, messages.created_at, text
FROM conversations JOIN messages USING (conversation_id)
WHERE user_id = (SELECT user_id FROM conversations GROUP BY user_id ORDER BY count(*) DESC, user_id LIMIT 1)
  AND role = 'USER'
ORDER BY began, conversation_id, message_index;

-- The analyst with a nightly job: what has changed since yesterday's midnight, compacted or not? If the API leaves
-- updated_at out, the newest other time counts. The query reads all partitions, because old conversations change too.
SELECT conversation_id, created_at,
  coalesce(updated_at, greatest(created_at, last_message_at, last_user_message_at)) AS changed_at
FROM conversations_latest
WHERE changed_at >= date_trunc('day', now()) - INTERVAL 1 DAY
ORDER BY changed_at DESC;

-- The engineer: what do keys of metadata and fields without a column hold? Customers' texts may contain half of a surrogate
-- pair. JSON allows it in escapes, and DuckDB's JSON functions refuse it. json_valid keeps such a row from ending the query.
SELECT conversation_id, json_extract_string(metadata, '$.user_type') AS user_type, extra
FROM conversations
WHERE json_valid(metadata)
LIMIT 10;
