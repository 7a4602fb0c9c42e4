-- The API may send a tag twice. A tag without a name shows its id.
select distinct tags.conversation_id, coalesce(tags.name, tags.tag_id) as tag
from {{ source('lake', 'tags') }} as tags
semi join {{ ref('stg_conversations') }} as conversations on tags.conversation_id = conversations.conversation_id
where coalesce(tags.name, tags.tag_id) is not null
