select
  created_on as day,
  count(*) as conversations,
  count(*) filter (where is_deflected) as deflected,
  avg(cast(is_deflected as integer)) as deflection_rate
from {{ ref('stg_conversations') }}
where created_on is not null
group by created_on
