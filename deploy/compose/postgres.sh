#!/bin/bash
# The database of the compose lab: made at the first start, with a password that only the masters' volume holds.
set -euo pipefail
programs=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
data=/var/lib/postgresql/cutaway
install -d -o postgres -g postgres -m 700 /var/lib/postgresql "$data"
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups -- "$@"; }
if [ ! -e "$data/PG_VERSION" ]; then
  install -o postgres -m 400 /var/lib/cutaway/pki/postgres-password /tmp/password
  as_postgres "$programs/initdb" -D "$data" -U cutaway --pwfile=/tmp/password -A scram-sha-256 -E UTF8 --locale=C >/dev/null
  rm /tmp/password
  echo 'host all all all scram-sha-256' >> "$data/pg_hba.conf"
  echo 'CREATE DATABASE cutaway' | as_postgres "$programs/postgres" --single -j -D "$data" postgres >/dev/null
fi
# A server that was killed with its container leaves its pid behind, which another process may have by now.
rm -f "$data/postmaster.pid"
exec setpriv --reuid postgres --regid postgres --clear-groups -- \
  "$programs/postgres" -D "$data" -k /tmp -c listen_addresses='*' -c max_connections=40
