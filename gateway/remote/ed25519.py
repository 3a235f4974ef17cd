"""A door: Ed25519, by ``cryptography``.

It is imported with the first signature: it takes 11 MB that a pole without ``[remote]`` keeps. A public key is 32
bytes. A private key lies in a file, PEM as OpenSSL writes it.
"""

PUBLIC_BYTES = 32


def is_signed(public: bytes, signature: bytes, text: bytes) -> bool:
    """Tell whether the owner of a public key signed a text."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except InvalidSignature:
        return False
    return True


class PrivateKey:
    """A key that signs."""

    def __init__(self, pem: bytes) -> None:
        """Read it. Raises ValueError where it is no Ed25519 key in PEM, or asks for a passphrase."""
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  # see above
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        try:
            key = load_pem_private_key(pem, None)
        except TypeError as error:
            raise ValueError("it has a passphrase") from error
        except UnsupportedAlgorithm as error:
            raise ValueError("it is a key of another kind") from error
        except ValueError as error:
            public = b"PUBLIC KEY-----" in pem
            raise ValueError("it is a public key" if public else "it is no private key in PEM, or damaged") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("it is a key of another kind")  # noqa: TRY004  # of the file, not of an argument
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    def sign(self, text: bytes) -> bytes:
        """Sign a text."""
        return self._key.sign(text)


def new_private_key() -> bytes:
    """Make a private key, in PEM."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
