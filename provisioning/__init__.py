"""Certificates, enrolment and bundles: what makes a room's controller and its desks trust each other."""
