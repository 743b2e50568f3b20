-- An outcome must agree with the times it was read from.
select flight_key, outcome
from {{ ref('flights') }}
where (outcome = 'cancelled') <> (departed_at is null)
    or (outcome in ('late', 'on time')) <> (arrival_delay_minutes is not null)
