#!/usr/bin/env bash
# The MLflow server for people with names and passwords: answers to HOSTS only, keeps files in ARTIFACTS and hands them out itself.
# Unlike `harness ui` it takes files too: workers of other machines have no other way to them. Each request shows a name and password.
set -euo pipefail
secrets=${SECRETS:-/run/secrets}
# Secrets go in by the environment: command lines can be read by every user of a machine.
export PGPASSWORD MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY
PGPASSWORD=$(<"$secrets/mlflow_password")
MLFLOW_AUTH_ADMIN_PASSWORD=$(<"$secrets/mlflow_admin_password")
MLFLOW_FLASK_SERVER_SECRET_KEY=$(<"$secrets/mlflow_secret_key")
export MLFLOW_BACKEND_STORE_URI=postgresql+psycopg://mlflow@$POSTGRES/mlflow
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
export MLFLOW_AUTH_CONFIG_PATH=${TMPDIR:-/tmp}/mlflow_auth.ini
cat >"$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
database_uri = postgresql+psycopg://mlflow@$POSTGRES/mlflow_auth
admin_username = admin
# Everybody with a name may read; who makes an experiment may write it and let others.
default_permission = READ
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
# A password is checked by a slow hash; once a minute is enough. A changed one may work on for as long.
auth_cache_ttl_seconds = 60
END
exec mlflow server --host "${LISTEN:-0.0.0.0}" --port "${PORT:-5000}" --workers "${WORKERS:-2}" --app-name basic-auth \
  --serve-artifacts --artifacts-destination "$ARTIFACTS" \
  --allowed-hosts "$HOSTS" --cors-allowed-origins "$ORIGINS" --x-frame-options DENY
