{# The measures of a group of flights, the same in every gold table. Delays are averages over the flights that have
   one: a cancelled flight has none. #}
{% macro measures() %}
    count(*) as flights,
    round(avg(departure_delay_minutes), 1) as avg_departure_delay_minutes,
    round(avg(arrival_delay_minutes), 1) as avg_arrival_delay_minutes,
    {{ percent_where("outcome = 'on time'") }} as on_time_percent,
    {{ percent_where("outcome = 'late'") }} as late_percent,
    {{ percent_where("outcome = 'cancelled'") }} as cancelled_percent
{%- endmacro %}


{# The share of a group's rows for which the condition holds, in percent. #}
{% macro percent_where(condition) -%}
    round(100.0 * count(case when {{ condition }} then 1 end) / count(*), 1)
{%- endmacro %}
