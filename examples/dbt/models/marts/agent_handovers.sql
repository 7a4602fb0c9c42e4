with answered_by_people as (
  select distinct conversation_id from {{ ref('stg_messages') }} where role not in ('USER', 'AI')
),

conversations as (
  select
    conversations.created_on,
    coalesce(conversations.destination <> 'AI', false) or people.conversation_id is not null as is_handed_over
  from {{ ref('stg_conversations') }} as conversations
  left join answered_by_people as people on conversations.conversation_id = people.conversation_id
  where conversations.created_on is not null
)

select
  cast(date_trunc('week', created_on) as date) as week,
  count(*) as conversations,
  count(*) filter (where is_handed_over) as handovers,
  avg(cast(is_handed_over as integer)) as handover_rate
from conversations
group by 1
