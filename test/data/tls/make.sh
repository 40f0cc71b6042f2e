#!/bin/sh
# Makes the certificates of this folder anew; see README.md. Needs openssl 3; run it here.
set -eu
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# config EXTENSIONS: of openssl ca, with the extensions given.
config() {
  : > "$work/index"
  cat > "$work/config" <<END
[ca]
default_ca = one
[one]
database = $work/index
new_certs_dir = $work
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[extensions]
$1
END
}

# key FILE
key() {
  openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1"
}

# sign REQUEST KEY OUT OPTION...
sign() {
  request=$1 signer=$2 out=$3
  shift 3
  openssl ca -batch -notext -config "$work/config" -extensions extensions -keyfile "$signer" \
    -in "$request" -out "$out" "$@"
}

always="-startdate 20200101000000Z -enddate 21200101000000Z"
long_ago="-startdate 20000101000000Z -enddate 20000102000000Z"

# authority NAME: its key is thrown away.
authority() {
  key "$work/$1.key"
  openssl req -new -key "$work/$1.key" -subj "/CN=granule test authority $1" -out "$work/csr"
  config 'basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign'
  # shellcheck disable=SC2086 # several words
  sign "$work/csr" "$work/$1.key" "$work/$1.pem" -selfsign $always
}

# certificate FOLDER END AUTHORITY DATES NAMES: END is server or client, and what it is good for.
certificate() {
  mkdir -p "$1"
  key "$1/$2-key.pem"
  openssl req -new -key "$1/$2-key.pem" -subj "/CN=granule test $2" -out "$work/csr"
  config "basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature
extendedKeyUsage = $2Auth
subjectAltName = $5"
  # shellcheck disable=SC2086 # several words
  sign "$work/csr" "$work/$3.key" "$1/$2-cert.pem" -cert "$work/$3.pem" $4
  cp "$work/ours.pem" "$1/ca-cert.pem"
}

here=DNS:localhost,IP:127.0.0.1,IP:::1
authority ours
authority theirs
certificate good server ours "$always" "$here"
certificate good client ours "$always" "$here"
certificate stranger server theirs "$always" "$here"
certificate stranger client theirs "$always" "$here"
certificate expired server ours "$long_ago" "$here"
certificate expired client ours "$long_ago" "$here"
certificate elsewhere server ours "$always" DNS:other.example
