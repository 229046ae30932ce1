"""Operations and networks that candidates are made of."""
