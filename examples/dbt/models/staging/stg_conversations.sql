select
  conversation_id,
  user_id,
  destination,
  created_at,
  cast(created_at at time zone 'UTC' as date) as created_on,
  not undeflected as is_deflected,
  coalesce(csat_rating, csat) as csat,
  message_count
from {{ source('lake', 'conversations') }}
-- `reconcile --on-deleted mark` marks what the API no longer has.
where deleted_at is null
