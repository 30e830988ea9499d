"""Machinery to put Quire under fire: limits, kills, mutations, injections."""
