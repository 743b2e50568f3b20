-- One row for each carrier and day, and together they are the flights that were chosen.
with report as (
    select
        sum(flights) as flights,
        count(*) as days,
        count(distinct (carrier_code, flight_date)) as different_days
    from {{ ref('carrier_report') }}
)

select *
from report
where coalesce(flights, 0) <> (select count(*) from {{ ref('flights') }} where {{ is_chosen() }})
    or days <> different_days
