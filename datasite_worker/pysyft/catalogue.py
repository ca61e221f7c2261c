"""Which of PySyft's registered types a message from outside may contain, and how each is built. Tables only.

PySyft builds any of its 447 registered types from a message. Most of them are its own machinery (servers, services,
stores, connections): no client or datasite has a reason to send one, and building some opens a file, makes a folder or
runs ``setattr`` with names that the sender chose.
"""

from __future__ import annotations

ATTRIBUTES: dict[str, frozenset[str]] = {
    "ActionObjectPermission": frozenset({"uid", "credentials", "permission"}),
    "ActionObjectPointer": frozenset(),
    "BlobFileObjectPointer": frozenset(),
    "CMPCompoundPermission": frozenset({"permissions"}),
    "CMPPermission": frozenset(),
    "CMPUserPermission": frozenset({"user_id", "permissions"}),
    "DemocraticConsensusModel": frozenset({"threshold"}),
    "LineageID": frozenset({"value", "syft_history_hash"}),
    "ServerURL": frozenset({"protocol", "host_or_ip", "port", "path", "query"}),
    "StoragePermission": frozenset({"uid", "server_uid"}),
    "UID": frozenset({"value"}),
    "inspect_Parameter": frozenset({"_annotation", "_name", "_kind", "_default"}),
    "numpy_no_value": frozenset(),
    "numpy_ufunc_unspecified": frozenset(),
}
"""Plain classes that PySyft fills by ``setattr``: those that a message may contain, with the names that may be set. All
other plain classes are internal."""

MACHINERY: frozenset[str] = frozenset(
    {
        # the queue, and what a worker process is started with
        *("APIEndpointQueueItem", "ActionQueueItem", "QueueItem", "WorkerSettings", "ZMQClientConfig"),
        # databases, stores and their files
        *("BaseDateTime", "BlobStorageClient", "BlobStorageClientConfig", "BlobStorageConfig", "DBConfig"),
        *("LockingConfig", "MongoStoreClientConfig", "MongoStoreConfig", "NoLockingConfig", "OnDiskBlobStorageClient"),
        *("OnDiskBlobStorageClientConfig", "OnDiskBlobStorageConfig", "PostgresDBConfig", "SQLiteDBConfig"),
        *("SQLiteStoreClientConfig", "SQLiteStoreConfig", "SeaweedFSClient", "SeaweedFSClientConfig"),
        *("SeaweedFSConfig", "StoreConfig", "ThreadingLockingConfig"),
        # where the data of others is fetched from: cloud stores, other servers, tunnels
        *("AzureRemoteConfig", "AzureSecureFilePathLocation", "BlobRetrievalByURL"),
        *("HTTPConnection", "HTTPServerRoute", "PythonConnection", "PythonServerRoute", "RatholeConfig"),
        *("RemoteConfig", "SeaweedFSBlobDeposit", "SeaweedSecureFilePathLocation"),
        *("AssociationRequestChange", "ServerPeer", "ServerPeerUpdate", "VeilidServerRoute"),
        # outgoing mail
        "EmailNotifier",
        # sets that forget their members
        "WeakSet",
    }
)
"""Types with a decoder or a constructor that a message from outside may still not contain."""

LOGIN_ANSWER = frozenset(
    {
        *("NoneType", "ServiceRole", "SyftError", "SyftSigningKey", "SyftSuccess", "UID", "UserPrivateKey"),
        *("bool", "bytes", "dict", "int", "list", "nacl_signing_key", "str"),
    }
)
"""What an answer to a login may contain."""

REGISTRATION = frozenset(
    {
        *("NoneType", "SyftSigningKey", "ServiceRole", "UID", "UserCreate", "bool", "bytes", "int", "nacl_signing_key"),
        *("pydantic_emailstr", "str"),
    }
)
"""What ``POST /register`` may contain."""

GUEST_CALL = frozenset(
    {"NoneType", "SyftAPICall", "UID", "bool", "bytes", "dict", "float", "int", "list", "str", "tuple"}
)
"""What a call without an account may contain."""
