select messages.conversation_id, messages.message_index, messages.role, messages.created_at
from {{ source('lake', 'messages') }} as messages
-- Leaves out the messages of conversations that were deleted at the source.
semi join {{ ref('stg_conversations') }} as conversations on messages.conversation_id = conversations.conversation_id
