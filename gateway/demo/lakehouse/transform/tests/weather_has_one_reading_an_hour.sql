-- Two readings for an hour would count each of its flights twice.
select origin_code, observed_hour
from {{ ref('weather') }}
group by origin_code, observed_hour
having count(*) > 1
