"""Recorded signals through the observation policy, compared with what a person approved; see README.md beside."""
