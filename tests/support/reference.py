"""The examples of the published reference, as text, and what each must run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """An example's text, and what it must run."""

    text: str
    pipeline: str = "dbt"
    steps: tuple[str, ...] = ("deps", "build", "elementary")
    lineage: bool = True


EXAMPLES = {
    "Run Ingester Only": Example(
        """
curl -s -X POST "$BASE/api/data-analytics/pipeline/trigger" \\
-H "Content-Type: application/json" \\
-d '{"pipeline": "ingester"}' | jq .
""",
        pipeline="ingester",
        steps=("ingester",),
        lineage=False,
    ),
    "dbt Daily - All Features Enabled (Default)": Example(
        """
curl -s -X POST "$BASE/api/data-analytics/pipeline/trigger" \\
-H "Content-Type: application/json" \\
-d '{
"pipeline": "dbt",
"command": "daily"
}' | jq .
"""
    ),
    "dbt Daily - Without OpenLineage (No Marquez)": Example(
        """
curl -s -X POST "$BASE/api/data-analytics/pipeline/trigger" \\
-H "Content-Type: application/json" \\
-d '{
"pipeline": "dbt",
"command": "daily",
"enableOpenlineage": false
}' | jq .
""",
        lineage=False,
    ),
    "dbt Daily - Without Elementary": Example(
        """
curl -s -X POST "$BASE/api/data-analytics/pipeline/trigger" \\
-H "Content-Type: application/json" \\
-d '{
"pipeline": "dbt",
"command": "daily",
"enableElementary": false
}' | jq .
""",
        steps=("deps", "build"),
    ),
    "dbt Daily - Minimal (No Marquez, No Elementary)": Example(
        """
curl -s -X POST "$BASE/api/data-analytics/pipeline/trigger" \\
-H "Content-Type: application/json" \\
-d '{
"pipeline": "dbt",
"command": "daily",
"enableOpenlineage": false,
"enableElementary": false
}' | jq .
""",
        steps=("deps", "build"),
        lineage=False,
    ),
    "dbt Daily - With OpenLineage, Without Elementary": Example(
        """
curl -s -X POST "$BASE/api/data-analytics/pipeline/trigger" \\
-H "Content-Type: application/json" \\
-d '{
"pipeline": "dbt",
"command": "daily",
"enableOpenlineage": true,
"enableElementary": false
}' | jq .
""",
        steps=("deps", "build"),
    ),
    "Full Pipeline (Ingester -> dbt)": Example(
        """
curl -s -X POST "$BASE/api/data-analytics/pipeline/trigger" \\
-H "Content-Type: application/json" \\
-d '{"pipeline": "full", "command": "daily"}' | jq .
""",
        pipeline="full",
        steps=("ingester", "deps", "build", "elementary"),
    ),
    "dbt Build Only (Models + Tests, No Elementary)": Example(
        """
curl -s -X POST "$BASE/api/data-analytics/pipeline/trigger" \\
-H "Content-Type: application/json" \\
-d '{"pipeline": "dbt", "command": "build"}' | jq .
""",
        steps=("build",),
    ),
}
QUICK_START = """
curl -s -X POST "$BASE/api/data-analytics/pipeline/trigger" \\
-H "Content-Type: application/json" \\
-d '{"pipeline": "full"}' | jq .
"""
POLL = """
curl -s "$BASE/api/data-analytics/pipeline/trigger?jobId=<jobId>" | jq .
"""
# As printed, but that it looks every 0.2 s where the reference says `sleep 10`.
POLL_UNTIL_DONE = """
JOB_ID="dbt-1710460800000-abc123"
while true; do
RESULT=$(curl -s "$BASE/api/data-analytics/pipeline/trigger?jobId=$JOB_ID")
STATUS=$(echo "$RESULT" | jq -r '.status')
echo "Status: $STATUS"
if [[ "$STATUS" != "running" ]]; then
echo "$RESULT" | jq .
break
fi
sleep 0.2
done
"""

# The trigger pipeline API, as printed.
TRIGGER_PIPELINE = """
curl --location 'https://app.prophecy.io/api/trigger/pipeline' \\
--header 'X-AUTH-TOKEN: <prophecy-pat>' \\
--header 'Content-Type: application/json' \\
--data '{
"fabricId": 33290,
"pipelineName": "bakehouse",
"parameters": {
"franchise_id": "3000007"
},
"version": "2",
"projectId": "41459",
"processName": "franchise_reviews"
}'
"""
RUN_STATUS = """
curl --location 'https://app.prophecy.io/api/trigger/pipeline/MDAw-xZGYzYzc3LTYzdsSdfx--LTQ3NTQ1ZYjI2Mw==' \\
--header 'X-AUTH-TOKEN: <prophecy-pat>'
"""
RUN_ID = "MDAw-xZGYzYzc3LTYzdsSdfx--LTQ3NTQ1ZYjI2Mw=="
UNKNOWN_FABRIC = "Fabric with uid `2290` not found"
RUN_FIELDS = {"success", "runId", "createdAt", "updatedAt", "projectId", "pipelineName", "fabricId", "runStatus"}
