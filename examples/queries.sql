-- Questions people ask of support data, for DuckDB. Put your lake's path or URL in the first line.
SET VARIABLE lake = 'lake';

CREATE VIEW conversations AS
FROM read_parquet(getvariable('lake') || '/conversations/*/*.parquet', hive_partitioning = true);
CREATE VIEW messages AS
FROM read_parquet(getvariable('lake') || '/messages/*/*.parquet', hive_partitioning = true);
CREATE VIEW tags AS
FROM read_parquet(getvariable('lake') || '/tags/*/*.parquet', hive_partitioning = true);

-- Deflection rate by day: how many conversations the AI resolved alone.
SELECT created_date, count(*) AS conversations, round(avg((NOT undeflected)::INT), 3) AS deflection_rate
FROM conversations
GROUP BY created_date
ORDER BY created_date;

-- CSAT by tag.
SELECT name AS tag, count(csat_rating) AS ratings, round(avg(csat_rating), 2) AS csat
FROM conversations JOIN tags USING (created_date, conversation_id)
GROUP BY tag
ORDER BY ratings DESC;

-- The text of the longest conversation.
SELECT message_index, role, text, created_at
FROM messages
WHERE conversation_id = (SELECT conversation_id FROM conversations ORDER BY message_count DESC, conversation_id LIMIT 1)
ORDER BY message_index;

-- A field without a column of its own. What customers typed may hold half of an emoji, which JSON allows in escapes and
-- DuckDB's JSON functions refuse: json_valid keeps such a row from ending the query.
SELECT conversation_id, json_extract_string(metadata, '$.user_type') AS user_type, extra
FROM conversations
WHERE extra IS NOT NULL AND json_valid(metadata)
LIMIT 10;
