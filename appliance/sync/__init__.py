"""Process 3 of a desk node: the MQTT link, the room's orders, checkpoints, the certificate and the upload."""
