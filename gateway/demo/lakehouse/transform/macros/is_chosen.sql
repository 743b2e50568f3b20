{# Whether a flight matches the variables `carrier` and `month`; a variable that is not set matches all flights.
   A value is escaped as a text or converted to a number, so it can't change the query. #}
{% macro is_chosen() -%}
    true
    {%- if var('carrier') is not none %}
    and carrier_code = '{{ dbt.escape_single_quotes(var('carrier') | string) }}'
    {%- endif %}
    {%- if var('month') is not none %}
    and extract(month from flight_date) = {{ var('month') | int }}
    {%- endif %}
{%- endmacro %}
