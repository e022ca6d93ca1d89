-- The databases of the shared servers: psql runs this once, when the volume is empty.
-- Optuna and MLflow each want a database of their own; a role that may write the ledger has no way to MLflow's users.
\set ledger_password `cat ${SECRETS:-/run/secrets}/ledger_password`
\set mlflow_password `cat ${SECRETS:-/run/secrets}/mlflow_password`
CREATE ROLE harness LOGIN PASSWORD :'ledger_password';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE ledger OWNER harness;
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
REVOKE CONNECT ON DATABASE ledger, mlflow, mlflow_auth FROM PUBLIC;
