"""Certificate authorities and certificates for tests: good ones, and each kind that must not be accepted."""

from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from types import SimpleNamespace

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOSTS = ["127.0.0.1", "localhost", "api.example.test", "store.example.test"]


class Authority:
    """A CA of one's own, whose certificate is in a file."""

    def __init__(self, folder):
        self.ca = trustme.CA()
        self.file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.file))
        self.trusted = {"SSL_CERT_FILE": self.file}

    def certificate(self, *hosts, **more):
        return self.ca.issue_cert(*(hosts or HOSTS), **more)

    def expired(self):
        return self.certificate(not_after=datetime.now(timezone.utc) - timedelta(days=1))

    def early(self):
        now = datetime.now(timezone.utc)
        return self.certificate(not_before=now + timedelta(days=1), not_after=now + timedelta(days=9))

    def of_itself(self, folder):
        """A certificate that was made with `openssl req -x509`, and is its own CA; it is trusted from now on."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.now(timezone.utc)
        hosts = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=9)).add_extension(hosts, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
        )
        pem = folder / "itself.pem"
        pem.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return SimpleNamespace(configure_cert=lambda context: context.load_cert_chain(pem))
