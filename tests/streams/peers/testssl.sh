#!/usr/bin/env bash
# Has testssl.sh look at our TLS server, without any network: `meson test --suite clients`.
#
#   testssl.sh WEFT_TLS KEY
#
# KEY is what the certificate has in it: ec or rsa.
#
# Fails if it complains about anything but what cannot be otherwise here (see `excused`). Exit status
# 77: it is not installed.
set -euo pipefail

weft_tls=$(realpath -- "$1") # Meson gives it relative to where it runs
case $2 in
    ec) key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256) ;;
    rsa) key=(-newkey rsa:2048) ;;
    *) exit 2 ;;
esac
testssl=$(command -v testssl || command -v testssl.sh) || {
    echo "no testssl.sh here"
    exit 77
}

place=$(mktemp -d "${TMPDIR:-/tmp}/weft-testssl.XXXXXX")
server=
finish() {
    if [[ -n $server ]]; then kill -TERM "$server" 2>/dev/null || true; fi
    wait || true
    rm -rf "$place"
}
trap finish EXIT
cd "$place"

# An authority, and a certificate of it as public authorities issue them.
quietly() { # COMMAND...: its output only if it fails
    "$@" >said 2>&1 || { cat said; exit 1; }
}
quietly openssl req -x509 "${key[@]}" -nodes -days 100 \
    -subj '/O=weft/CN=authority of a test' -keyout authority.key -out authority.pem
quietly openssl req "${key[@]}" -nodes \
    -subj '/CN=localhost' -keyout server.key -out server.csr
cat >extensions <<'EXTENSIONS'
subjectAltName = DNS:localhost
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
basicConstraints = critical,CA:FALSE
crlDistributionPoints = URI:http://localhost/none.crl
EXTENSIONS
quietly openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -days 100 \
    -extfile extensions -out server.pem
cat server.pem authority.pem >chain.pem

touch log # before the server has it
"$weft_tls" echo 0 chain.pem server.key 2 2>log &
server=$!
port=
for ((tries = 0; tries < 200 && ${#port} == 0; ++tries)); do
    port=$(sed -n 's/^ready [0-9]* //p' log)
    sleep 0.05
done
[[ -n $port ]] || { cat log; exit 1; }

# All it has but the simulation of browsers and the long list of ciphers: what those could find, the
# tests of protocols and categories find as well.
timeout 570 "$testssl" -p -s -f -P -S -U -4 -g --quiet --color 0 --warnings batch --nodns none --ip 127.0.0.1 \
    --add-ca authority.pem --openssl-timeout 10 --connect-timeout 10 --jsonfile found.json \
    "localhost:$port" >report || { status=$?; [[ $status -lt 200 ]] || { cat report; exit 1; }; }

kill -0 "$server" || { cat log; echo "the server has ended"; exit 1; }

python3 - <<'PYTHON' || { cat report; exit 1; }
import json
import sys

# What is there because there is no network, no name service and no public authority.
excused = {
    "engine_problem": "what its own OpenSSL lacks",
    "OCSP_stapling": "nobody who would sign it",
    "cert_caIssuers": "a test's authority",
    "DNS_CAArecord": "no name service",
    "cert_revocation": "nobody to ask",
}
findings = json.load(open("found.json"))
bad = [each for each in findings
       if each["severity"] not in ("OK", "INFO", "DEBUG") and each["id"] not in excused]
for each in bad:
    print(each["severity"], each["id"], each["finding"])
print(len(findings), "findings,", len(bad), "complaints")
sys.exit(bool(bad) or len(findings) < 50)
PYTHON
