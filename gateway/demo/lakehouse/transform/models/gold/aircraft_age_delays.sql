-- Are old aircraft less punctual?
with aged as (
    select
        *,
        case
            when aircraft_age_years < 5 then '0 to 4 years'
            when aircraft_age_years < 10 then '5 to 9 years'
            when aircraft_age_years < 15 then '10 to 14 years'
            when aircraft_age_years < 20 then '15 to 19 years'
            when aircraft_age_years >= 20 then '20 years and more'
            else 'not known'
        end as aircraft_age
    from {{ ref('flight_details') }}
)

select
    aircraft_age,
    count(distinct tail_number) as aircraft,
    {{ measures() }}
from aged
group by aircraft_age
-- unknown ages come last
order by min(aircraft_age_years) nulls last
