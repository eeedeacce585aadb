"""Fixtures of the data tests."""

import socket

import pytest


@pytest.fixture
def no_network(monkeypatch):
    """Makes every use of the network fail."""

    def refuse(*_):
        raise AssertionError('the network was touched')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
