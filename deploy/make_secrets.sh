#!/usr/bin/env bash
# A random secret for each that has none yet, in deploy/secrets/ (ignored by git). Only this user may enter the folder; the files
# in it can be read by all, for each is mounted by itself into containers that run as users of their own.
set -euo pipefail
cd "$(dirname "$0")/secrets"
chmod 700 .
for name in postgres_password ledger_password mlflow_password mlflow_admin_password mlflow_secret_key ray_token; do
  if [ ! -s "$name" ]; then
    head -c 24 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' >"$name.new"
    chmod 444 "$name.new"
    mv "$name.new" "$name"
    echo "made deploy/secrets/$name"
  fi
done
