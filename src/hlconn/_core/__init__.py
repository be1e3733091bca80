"""Compiled: bytes in, values out. Use the names that `hlconn` exports; what is in here may move."""
