"""The commands of ``scripts/``: ``parse`` needs the standard library only, ``run`` the rest."""
