-- Questions people ask of support data, for DuckDB, over the views that `decagon-lake views` makes:
--   decagon-lake views --engine duckdb | duckdb support.duckdb
--   duckdb support.duckdb < queries.sql
-- Put _latest behind a table's name for what was fetched and is not compacted yet.

-- The head of support: how many conversations does the AI resolve alone, day by day?
SELECT created_date, count(*) AS conversations, round(avg((NOT undeflected)::INT), 3) AS deflection_rate
FROM conversations
GROUP BY created_date
ORDER BY created_date;

-- The product manager: what are people content with, and what not? CSAT by tag and week; a tag without a name by its id.
SELECT tag, date_trunc('week', created_date)::DATE AS week, count(*) AS ratings, round(avg(csat_rating), 2) AS csat
FROM conversations
JOIN (SELECT DISTINCT created_date, conversation_id, coalesce(name, tag_id) AS tag FROM tags)
  USING (created_date, conversation_id)
WHERE csat_rating IS NOT NULL
GROUP BY tag, week
ORDER BY tag, week;

-- The team lead: which conversations go on and on?
SELECT conversation_id, created_date, user_id, message_count, last_message_at - created_at AS lasted, summary
FROM conversations
ORDER BY message_count DESC, conversation_id
LIMIT 10;

-- The operations manager: how often does the AI hand over to a human, week by week? Taken for it: the conversation's
-- destination is not the AI, or somebody who is neither the user nor the AI has written in it. (`undeflected` is wider: it
-- also counts what was not resolved and never handed over.)
SELECT date_trunc('week', created_date)::DATE AS week, count(*) AS conversations,
  round(avg((coalesce(destination <> 'AI', false) OR people.conversation_id IS NOT NULL)::INT), 3) AS handover_rate
FROM conversations
LEFT JOIN (SELECT DISTINCT created_date, conversation_id FROM messages WHERE role NOT IN ('USER', 'AI')) people
  USING (created_date, conversation_id)
GROUP BY week
ORDER BY week;

-- The agent with a customer on the line: what has this user said before? Put the user's id in the place of the subquery,
-- which takes whoever wrote most often.
SELECT conversations.created_date, conversation_id, message_index, messages.created_at, text
FROM conversations JOIN messages USING (created_date, conversation_id)
WHERE user_id = (SELECT user_id FROM conversations GROUP BY user_id ORDER BY count(*) DESC, user_id LIMIT 1)
  AND role = 'USER'
ORDER BY conversations.created_date, conversation_id, message_index;

-- The analyst with a nightly job: what has changed since yesterday's midnight, whenever it began, compacted or not? Where
-- the API leaves updated_at out, the newest other time stands for it. All dates are looked at: old conversations change too.
SELECT conversation_id, created_date,
  coalesce(updated_at, greatest(created_at, last_message_at, last_user_message_at)) AS changed_at
FROM conversations_latest
WHERE changed_at >= date_trunc('day', now()) - INTERVAL 1 DAY
ORDER BY changed_at DESC;

-- The engineer: what is in a field without a column of its own? What customers typed may hold half of an emoji, which JSON
-- allows in escapes and DuckDB's JSON functions refuse: json_valid keeps such a row from ending the query.
SELECT conversation_id, json_extract_string(metadata, '$.user_type') AS user_type, extra
FROM conversations
WHERE extra IS NOT NULL AND json_valid(metadata)
LIMIT 10;
