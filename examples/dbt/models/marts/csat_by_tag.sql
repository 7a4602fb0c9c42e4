select
  tags.tag,
  count(*) as conversations,
  count(conversations.csat) as ratings,
  avg(conversations.csat) as csat
from {{ ref('stg_conversations') }} as conversations
inner join {{ ref('stg_tags') }} as tags on conversations.conversation_id = tags.conversation_id
group by tags.tag
