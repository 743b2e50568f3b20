{# Name the schemas `silver` and `gold`. dbt's default is main_silver and main_gold, so that developers can share a
   database; this one is a file of its own. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name | default(target.schema, true) | trim }}
{%- endmacro %}
