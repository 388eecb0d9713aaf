module newcomer

go 1.23
